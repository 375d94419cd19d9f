"""`yolact predict`: segment images, folders and videos."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.inference import (
    add_images_argument,
    add_model_argument,
    add_segmenter_arguments,
    add_stream_arguments,
    open_segmenter,
    report_faults,
    segment_files,
)
from yolact_ros.cli.json_file import write_json

if TYPE_CHECKING:
    from yolact_ros.runtime.detections import Detections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact predict`."""
    add_images_argument(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write boxes, scores and masks (COCO RLE) here"
    )
    parser.add_argument(
        "--overlay", type=Path, metavar="FOLDER", help="write images and videos with masks here"
    )
    add_model_argument(parser)
    add_segmenter_arguments(parser)
    add_stream_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment everything; return 1 if a file could not be read."""
    from tqdm import tqdm

    from yolact_ros.cli.overlays import Overlays
    from yolact_ros.runtime.images.files import find_files
    from yolact_ros.runtime.output.draw import draw_detections
    from yolact_ros.runtime.output.entries import describe

    files = find_files(arguments.images)
    overlays = Overlays(arguments.overlay, files) if arguments.overlay else None
    entries: list[dict[str, Any]] = []
    faults: list[str] = []
    with open_segmenter(arguments) as segmenter:
        classes = segmenter.description.model.classes
        try:
            for frame, found in segment_files(arguments, segmenter, files):
                if frame.image is None or found is None:
                    faults.append(frame.fault)
                    continue
                if overlays:
                    overlays.write(frame, draw_detections(frame.image, found, classes))
                if arguments.json:
                    entries.append(describe(frame.name, found, classes, frame.stamp))
                if not overlays and not arguments.json:
                    tqdm.write(summarise(frame.name, found, classes), file=sys.stdout)
        finally:  # an interrupted run keeps its results
            if overlays:
                overlays.close()
            if arguments.json:
                write_json(arguments.json, entries)
    return report_faults(arguments, faults, total=len(files))


def summarise(name: str, found: Detections, classes: tuple[str, ...]) -> str:
    """Return one line about an image: the number of instances of each class."""
    counts = Counter(classes[class_id] for class_id in found.class_ids)
    seen = ", ".join(f"{count} {class_name}" for class_name, count in counts.most_common())
    return f"{name}: {seen or 'nothing'}"
