"""`yolact evaluate-tracks`: measure how well objects in videos keep their track ids."""

from __future__ import annotations

import argparse
import dataclasses

from yolact_ros.cli.inference import (
    MODEL,
    add_segmenter_arguments,
    add_stream_arguments,
    open_segmenter,
    open_stream,
)
from yolact_ros.cli.settings import FILE, FOLDER, JSON, documented, number, read_settings
from yolact_ros.config import TrackerConfig
from yolact_ros.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact evaluate-tracks`.

    Example:
        tabletop --annotations clips/instances.json --images clips/images

    Options:
        --annotations: annotations in COCO format with track_id, as `yolact simulate clip` writes
            them, or in YouTube-VIS format.
        --images: folder of the annotated images.
        --rate: frame rate of the videos, in images per second.
        --json: write all measurements to this file.
    """
    add = documented(parser, add_arguments)
    add("model", metavar="MODEL", help=MODEL)
    add("--annotations", **JSON, required=True)
    add("--images", **FOLDER, required=True)
    add("--rate", **number(0.01, 1e4, 20.0))
    add("--json", **FILE)
    add_segmenter_arguments(parser)
    add_stream_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the tracks and print the result."""
    from yolact_ros.datasets.coco import CocoDataset
    from yolact_ros.evaluate.tracks import evaluate_tracks

    with open_segmenter(arguments) as segmenter:
        classes = segmenter.description.model.classes
        scores = evaluate_tracks(
            lambda: open_stream(arguments, segmenter).detect,
            CocoDataset(arguments.annotations, arguments.images, classes=classes),
            config=read_settings(arguments, TrackerConfig()),
            rate=arguments.rate,
        )
    print(
        f"IDF1 {100 * scores.idf1:.1f} %, MOTA {100 * scores.mota:.1f} %, "
        f"{scores.id_switches} identity switches and {scores.fragmentations} fragmentations of "
        f"{scores.objects} objects, seen {scores.appearances} times in {scores.images} images"
    )
    if arguments.json:
        write_json(arguments.json, dataclasses.asdict(scores))
    return 0
