"""`yolact predict`: segment images, folders and videos."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from yolact_ros.config import DEFAULT_MODEL, PostprocessConfig

if TYPE_CHECKING:
    from yolact_ros.runtime.detections import Detections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE|FOLDER|VIDEO", help="what to segment"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write boxes, scores and masks (COCO RLE) here"
    )
    parser.add_argument(
        "--overlay", type=Path, metavar="FOLDER", help="write images and videos with masks here"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help="shipped model, bundle folder or checkpoint file (default: %(default)s)",
    )
    add_backend_arguments(parser)
    add_postprocess_arguments(parser, PostprocessConfig())
    add_keyframe_arguments(parser)
    add_tracker_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment everything; 1 if a file could not be read."""
    from tqdm import tqdm

    from yolact_ros.cli.overlays import Overlays
    from yolact_ros.runtime.images.files import count_frames, find_files, is_video, read_frames
    from yolact_ros.runtime.output.draw import draw_detections
    from yolact_ros.runtime.segmenter import Segmenter

    config = read_postprocess_settings(arguments, PostprocessConfig())
    keyframes = read_keyframe_settings(arguments)
    tracking = read_tracker_settings(arguments)
    files = find_files(arguments.images)
    overlays = Overlays(arguments.overlay, files) if arguments.overlay else None
    check_writable(arguments.json)
    entries: list[dict[str, Any]] = []
    unreadable: list[str] = []
    with Segmenter.open(
        arguments.model,
        postprocess=config,
        backend=read_backend_settings(arguments),
    ) as segmenter:
        classes = segmenter.description.model.classes
        streams = {
            file: segmenter.stream(keyframes, tracker=tracking) for file in files if is_video(file)
        }
        bar = tqdm(
            read_frames(files),
            total=count_frames(files),
            desc="predict",
            unit="image",
            mininterval=0.5,
        )
        try:
            for frame in bar:
                if frame.image is None:
                    unreadable.append(frame.fault)
                    continue
                if stream := streams.get(frame.path):
                    found = stream.segment(frame.image, frame.stamp)
                else:
                    found = segmenter.segment(frame.image)
                if overlays:
                    overlays.write(frame, draw_detections(frame.image, found, classes))
                if arguments.json:
                    entries.append(describe(frame.name, found, classes))
                if not overlays and not arguments.json:
                    bar.write(summarise(frame.name, found, classes), file=sys.stdout)
        finally:  # what was done stays, also if the rest was interrupted
            bar.close()
            if overlays:
                overlays.close()
            if arguments.json:
                write_json(arguments.json, entries)
    return _report_unreadable(unreadable, total=len(files))


def describe(name: str, found: Detections, classes: tuple[str, ...]) -> dict[str, Any]:
    """One image's entry of the JSON file: boxes in pixels, masks as COCO RLE.

    `class_id` counts from 1, as in the node's messages. `keyframe_reason` is null for single
    images and for frames that are no keyframe; `track_id` is 0 for single images and for
    objects of a video that have no number yet.
    """
    from yolact_ros.runtime.output.rle import encode_rle

    instances = [
        {
            "track_id": 0 if found.track_ids is None else int(found.track_ids[i]),
            "class_id": int(found.labels[i]),
            "class_name": classes[found.class_ids[i]],
            "score": round(float(found.scores[i]), 6),
            "mask_score": round(float(found.mask_scores[i]), 6),
            "box": [round(float(value), 3) for value in found.boxes[i]],
            "segmentation": encode_rle(found.masks[i], found.mask_rois[i], found.image_size),
        }
        for i in range(len(found))
    ]
    height, width = found.image_size
    return {
        "image": name,
        "height": height,
        "width": width,
        "frame_type": found.frame_type,
        "keyframe_reason": found.keyframe_reason,
        "instances": instances,
    }


def summarise(name: str, found: Detections, classes: tuple[str, ...]) -> str:
    """One line on one image: how many of each class."""
    counts = Counter(classes[class_id] for class_id in found.class_ids)
    seen = ", ".join(f"{count} {class_name}" for class_name, count in counts.most_common())
    return f"{name}: {seen or 'nothing'}"


def _report_unreadable(unreadable: list[str], *, total: int) -> int:
    """Say which files gave no image, and why; returns the exit status."""
    for fault in unreadable:
        print(f"yolact predict: {fault}", file=sys.stderr)
    if unreadable:
        print(
            f"yolact predict: {len(unreadable)} of {total} files could not be read; all others "
            "were segmented.",
            file=sys.stderr,
        )
    return 1 if unreadable else 0
