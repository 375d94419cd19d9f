"""`yolact bag`: copy a recorded bag and add the instances in every image."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.cli.inference import add_inference_arguments, open_segmenter
from yolact_ros.cli.settings import FLAG, documented, read_settings
from yolact_ros.config import KeyframeConfig, TrackerConfig
from yolact_ros.errors import ConfigError

if TYPE_CHECKING:
    from yolact_ros.bag.segmented_bag import BagOptions

SHOWN_FAILURES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact bag`.

    Example:
        recording out/recording --topic /camera/image_raw --model tools

    Options:
        bag: folder of a ROS 2 bag, or its .mcap or .db3 file.
        target: bag to write: a file if the name ends in .mcap or .db3, otherwise a folder with the
            same storage format as IN.
    """
    add = documented(parser, add_arguments)
    add("bag", type=Path, metavar="IN")
    add("target", type=Path, metavar="OUT")
    add_bag_arguments(parser)
    add_inference_arguments(parser)


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `read_bag_options` reads, except those of `add_stream_arguments`.

    Options:
        --topic: topic of the images, raw or compressed (default: the bag's only image topic).
        --result-topic: topic for the yolact_ros/InstanceArray messages.
        --mask-encoding: encoding of the masks.
        --annotations: add outlines and class names as foxglove_msgs/ImageAnnotations.
        --overlay: add JPEG images with the instances drawn on them.
    """
    add = documented(parser, add_bag_arguments)
    add("--topic", metavar="NAME")
    add("--result-topic", default="/yolact/instances", metavar="NAME")
    add("--mask-encoding", choices=("bits", "mono8", "rle", "none"), default="bits")
    add("--annotations", **FLAG)
    add("--overlay", **FLAG)


def read_bag_options(arguments: argparse.Namespace) -> BagOptions:
    """Return what to write into the copy of a bag.

    Raises:
        ConfigError: a value is out of range, or the topic is not a ROS name.
    """
    from yolact_ros.bag.segmented_bag import BagOptions

    if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", arguments.result_topic, re.ASCII):
        raise ConfigError(
            f"--result-topic is {arguments.result_topic[:80]!r}; expected a ROS topic name, e.g. "
            "/yolact/instances."
        )
    options = BagOptions(
        topic=arguments.topic,
        result_topic=f"/{arguments.result_topic.lstrip('/')}",
        mask_encoding=arguments.mask_encoding,
        annotations=arguments.annotations,
        overlay=arguments.overlay,
        keyframes=read_settings(arguments, KeyframeConfig()),
        tracker=read_settings(arguments, TrackerConfig()),
    )
    if len(options.topics()) < 1 + options.annotations + options.overlay:
        raise ConfigError(
            f"--result-topic is {options.result_topic}, which is the topic of the annotations or "
            "overlays; choose another name."
        )
    return options


def run(arguments: argparse.Namespace) -> int:
    """Process the bag; return 1 if an image has no result."""
    from tqdm import tqdm

    from yolact_ros.bag.segmented_bag import segment_bag

    options = read_bag_options(arguments)
    with (
        open_segmenter(arguments) as segmenter,
        tqdm(desc="bag", unit="image", mininterval=0.5, delay=0.01) as bar,
    ):

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            report = segment_bag(
                arguments.bag, arguments.target, segmenter, options=options, progress=show
            )
        except KeyboardInterrupt:
            bar.close()
            print(
                f"yolact bag: {bar.n} of {bar.total} images are done and saved beside "
                f"{arguments.target}; run the same command again to continue.",
                file=sys.stderr,
            )
            raise
    done = report.images - len(report.failures)
    text = f"{done} of {report.images} images of {report.topic}"
    if report.resumed:
        text += f" ({report.resumed} reused from an interrupted run)"
    print(f"{arguments.target}: instances of {text}.")
    for number, reason in list(report.failures.items())[:SHOWN_FAILURES]:
        print(f"yolact bag: image {number}: {reason}", file=sys.stderr)
    if len(report.failures) > SHOWN_FAILURES:
        more = len(report.failures) - SHOWN_FAILURES
        print(f"yolact bag: {more} more images have no result.", file=sys.stderr)
    return 1 if report.failures else 0
