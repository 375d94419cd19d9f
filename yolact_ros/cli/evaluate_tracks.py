"""`yolact evaluate-tracks`: how well objects of videos keep their numbers."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from yolact_ros.cli.json_file import check_writable, write_json
from yolact_ros.cli.settings import (
    add_backend_arguments,
    add_keyframe_arguments,
    add_postprocess_arguments,
    add_tracker_arguments,
    read_backend_settings,
    read_keyframe_settings,
    read_postprocess_settings,
    read_tracker_settings,
)
from yolact_ros.config import PostprocessConfig
from yolact_ros.errors import BackendError, DatasetError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", help="shipped model, bundle folder or checkpoint file")
    parser.add_argument(
        "--annotations", type=Path, required=True, metavar="JSON",
        help="in COCO's format with track_id, as `yolact simulate clip` writes them, or of "
        "YouTube-VIS",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--rate", type=float, default=20.0, help="images per second (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    add_backend_arguments(parser)
    add_postprocess_arguments(parser, PostprocessConfig())
    add_keyframe_arguments(parser)
    add_tracker_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print."""
    try:
        import motmetrics  # noqa: F401
    except ImportError as error:
        raise BackendError(
            "Evaluating tracks needs motmetrics; install it with: "
            "pip install 'yolact_ros[evaluate-tracks]'"
        ) from error
    from yolact_ros.datasets.coco import CocoDataset
    from yolact_ros.evaluate.tracks import evaluate_tracks
    from yolact_ros.runtime.segmenter import Segmenter

    if not arguments.rate > 0:
        raise DatasetError(f"--rate is {arguments.rate}; expected images per second.")
    check_writable(arguments.json)
    keyframes = read_keyframe_settings(arguments)
    with Segmenter.open(
        arguments.model,
        postprocess=read_postprocess_settings(arguments, PostprocessConfig()),
        backend=read_backend_settings(arguments),
    ) as segmenter:
        classes = segmenter.description.model.classes

        def open_video() -> Any:
            return segmenter.stream(keyframes).detect

        scores = evaluate_tracks(
            open_video,
            CocoDataset(arguments.annotations, arguments.images, classes=classes),
            config=read_tracker_settings(arguments),
            rate=arguments.rate,
        )
    print(
        f"IDF1 {100 * scores.idf1:.1f} %, MOTA {100 * scores.mota:.1f} %, "
        f"{scores.id_switches} identity switches and {scores.fragmentations} fragmentations of "
        f"{scores.objects} objects, seen {scores.sights} times in {scores.images} images"
    )
    if arguments.json:
        write_json(arguments.json, dataclasses.asdict(scores))
    return 0
