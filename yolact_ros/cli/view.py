"""`yolact view`: show results in the Rerun viewer."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_ros.cli.inference import (
    add_images_argument,
    add_model_argument,
    add_segmenter_arguments,
    add_stream_arguments,
    open_segmenter,
    report_faults,
    segment_files,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact view`."""
    add_images_argument(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.rrd", help="record here, without a viewer"
    )
    add_model_argument(parser)
    add_segmenter_arguments(parser)
    add_stream_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment everything into one recording; return 1 if a file could not be read."""
    from yolact_ros.runtime.images.files import find_files
    from yolact_ros.view.recording import Recording

    files = find_files(arguments.images)
    faults: list[str] = []
    with open_segmenter(arguments) as segmenter:
        recording = Recording(segmenter.description.model.classes, path=arguments.output)
        try:
            for frame, found in segment_files(arguments, segmenter, files):
                if frame.image is None or found is None:
                    faults.append(frame.fault)
                else:
                    recording.log(frame.image, found, frame.stamp)
        finally:
            recording.close()
    if arguments.output:
        print(f"{arguments.output}: open it with `rerun {arguments.output}`")
    return report_faults(arguments, faults, total=len(files))
