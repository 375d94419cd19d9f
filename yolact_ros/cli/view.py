"""`yolact view`: results in the Rerun viewer."""

from __future__ import annotations

import argparse
from pathlib import Path

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE|FOLDER|VIDEO", help="what to segment"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.rrd", help="record here, without a viewer"
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
    """Segment everything into one recording; 1 if a file could not be read."""
    import sys

    from tqdm import tqdm

    from yolact_ros.runtime.images.files import count_frames, find_files, is_video, read_frames
    from yolact_ros.runtime.segmenter import Segmenter
    from yolact_ros.view.recording import Recording

    keyframes = read_keyframe_settings(arguments)
    tracker = read_tracker_settings(arguments)
    postprocess = read_postprocess_settings(arguments, PostprocessConfig())
    files = find_files(arguments.images)
    faults: list[str] = []
    with Segmenter.open(
        arguments.model, backend=read_backend_settings(arguments), postprocess=postprocess
    ) as segmenter:
        streams = {
            file: segmenter.stream(keyframes, tracker=tracker) for file in files if is_video(file)
        }
        recording = Recording(segmenter.description.model.classes, path=arguments.output)
        try:
            for frame in tqdm(read_frames(files), total=count_frames(files), unit="image"):
                if frame.image is None:
                    faults.append(frame.fault or f"{frame.path} cannot be read.")
                elif stream := streams.get(frame.path):
                    found = stream.segment(frame.image, frame.stamp)
                    recording.log(frame.image, found, frame.stamp)
                else:
                    recording.log(frame.image, segmenter.segment(frame.image), None)
        finally:
            recording.close()
    for fault in faults:
        print(f"yolact view: {fault}", file=sys.stderr)
    if arguments.output:
        print(f"{arguments.output}: open it with `rerun {arguments.output}`")
    return 1 if faults else 0
