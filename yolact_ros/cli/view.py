"""`yolact view`: show results in the Rerun viewer."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.cli.inference import (
    add_inference_arguments,
    open_segmenter,
    open_stream,
    report_faults,
    segment_files,
)
from yolact_ros.cli.settings import FLAG, documented, number
from yolact_ros.errors import ConfigError, MessageError

if TYPE_CHECKING:
    import numpy as np

    from yolact_ros.runtime.detections import Detections
    from yolact_ros.runtime.segmenter import Segmenter
    from yolact_ros.view.recording import Recording

PICTURE = "picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact view`.

    Example:
        video.mp4 -o out/video.rrd

    Options:
        images: images, folders, videos or recorded bags to segment.
        --topic: topic of a bag's images (default: the bag's only image topic).
        --depth: topic of a bag's depth images, which must have the same size, view and stamps as
            the images; adds 3-D points and boxes; requires --camera-info.
        --camera-info: topic of a bag's camera calibration.
        --rectified: the images and depth images of the bags are rectified.
        --instance: also draw how prototypes add up to the mask of the object with track id N or,
            in single images, of the Nth best instance.
        --output: write the recording to this file instead of opening the viewer.
    """
    add = documented(parser, add_arguments)
    add("images", nargs="+", type=Path, metavar="SOURCE")
    add("--topic", metavar="NAME")
    add("--depth", metavar="NAME")
    add("--camera-info", metavar="NAME")
    add("--rectified", **FLAG)
    add("--instance", **number(-(2**31), 2**31))
    add("-o", "--output", type=Path, metavar="FILE.rrd")
    add_inference_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment everything into one recording; return 1 if something could not be read."""
    from yolact_ros.runtime.images.files import find_sources
    from yolact_ros.view.recording import Recording

    if bool(arguments.depth) != bool(arguments.camera_info):
        raise ConfigError("3-D points require both --depth and --camera-info.")
    bags = [path for path in arguments.images if _is_bag(path)]
    files = [path for path in arguments.images if path not in bags]
    sources = find_sources(files) if files else []
    faults: list[str] = []
    with open_segmenter(arguments) as segmenter:
        recording = Recording(arguments.output)
        recording.name_classes(dict(enumerate(segmenter.description.model.classes, start=1)))
        if not bags:
            recording.arrange(PICTURE, prototypes=arguments.instance is not None)
        try:
            for frame, found in segment_files(arguments, segmenter, sources) if sources else ():
                if frame.image is None or found is None:
                    faults.append(frame.fault)
                    continue
                recording.next_frame()
                if frame.stamp is not None:
                    recording.set_stamp(frame.stamp)
                recording.log_image(PICTURE, frame.image)
                recording.log_detections(PICTURE, found)
                _log_prototypes(arguments, segmenter, recording, frame.image, found)
            for bag in bags:
                faults += _log_bag(arguments, bag, segmenter, recording)
        finally:
            recording.close()
    if arguments.output:
        print(f"{arguments.output}: open it with `rerun {arguments.output}`")
    return report_faults(arguments, faults)


def _is_bag(path: Path) -> bool:
    return path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file()


def _log_prototypes(
    arguments: argparse.Namespace,
    segmenter: Segmenter,
    recording: Recording,
    image: np.ndarray,
    found: Detections,
) -> None:
    """Draw the prototypes of the chosen instance, if any."""
    if arguments.instance is not None:
        from yolact_ros.evaluate.prototypes import draw_instance
        from yolact_ros.view.recording import PROTOTYPES

        sheet = draw_instance(segmenter, image, found, arguments.instance)
        if sheet is not None:
            recording.log_image(PROTOTYPES, sheet)


def _log_bag(
    arguments: argparse.Namespace, bag: Path, segmenter: Segmenter, recording: Recording
) -> list[str]:
    """Log the results of a bag's images and its other topics; return what could not be read."""
    from tqdm import tqdm

    from yolact_ros.bag.depth import BagDepth
    from yolact_ros.bag.files import find_images, open_bag, read_messages
    from yolact_ros.bag.messages import read_image
    from yolact_ros.runtime.stamps import nanoseconds, seconds_of

    faults: list[str] = []
    stream = open_stream(arguments, segmenter)
    with ExitStack() as stack:
        reader = stack.enter_context(open_bag(bag))
        depth = None
        if arguments.depth:
            topics = arguments.depth, arguments.camera_info
            # With its own reader, because it runs ahead of the images.
            depth_reader = stack.enter_context(open_bag(bag))
            depth = BagDepth(depth_reader, *topics, rectified=arguments.rectified)
        images = find_images(reader, arguments.topic)
        recording.arrange(
            images[0].topic, space=depth is not None, prototypes=arguments.instance is not None
        )
        total = sum(connection.msgcount for connection in images)
        # Rerun reads MCAP itself: the images, and everything else in the bag that it can show.
        parts = sorted(bag.glob("*.mcap")) if bag.is_dir() else [bag]
        parts = [part for part in parts if part.suffix == ".mcap"]
        for part in parts:
            recording.import_file(part)
        messages = tqdm(read_messages(reader, images), total=total, desc="view", unit="image")
        for number, (connection, time, data) in enumerate(messages):
            try:
                header, image = read_image(data, connection.msgtype)
            except MessageError as error:
                faults.append(f"Image {number} of {bag}: {error}")
                continue
            found = stream.segment(image, seconds_of(header.stamp))
            stamp = nanoseconds(header.stamp)
            recording.next_frame()
            recording.set_ros_time(stamp, time)
            if not parts:
                recording.log_image(connection.topic, image)
            recording.log_detections(connection.topic, found)
            _log_prototypes(arguments, segmenter, recording, image, found)
            if depth is not None:
                try:
                    recording.log_objects_3d(found, depth.find(stamp))
                except MessageError as error:
                    faults.append(f"Image {number} of {bag}: {error}")
    return faults
