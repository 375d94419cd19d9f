"""`yolact bag`: a copy of a recorded bag with the instances of every image."""

from __future__ import annotations

import argparse
import re
import sys
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
from yolact_ros.errors import ConfigError

SHOWN_FAILURES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "bag", type=Path, metavar="IN", help="folder of a ROS 2 bag, or its .mcap or .db3 file"
    )
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="the new bag: a file if it ends in .mcap or .db3, else a folder, stored as IN is",
    )
    parser.add_argument(
        "--topic",
        metavar="NAME",
        help="of the images, raw or compressed (default: the only one that the bag has)",
    )
    parser.add_argument(
        "--result-topic",
        default="/yolact/instances",
        metavar="NAME",
        help="of the yolact_ros/InstanceArray messages (default: %(default)s)",
    )
    parser.add_argument(
        "--mask-encoding",
        choices=("bits", "mono8", "rle", "none"),
        default="bits",
        help="form of the masks (default: %(default)s)",
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
    """Process the bag; 1 if an image has no result."""
    from tqdm import tqdm

    from yolact_ros.bag.segmented_bag import BagOptions, BagReport, segment_bag
    from yolact_ros.runtime.segmenter import Segmenter

    if not re.fullmatch(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", arguments.result_topic, re.ASCII):
        raise ConfigError(
            f"--result-topic is {arguments.result_topic[:80]!r}; expected a name of ROS, such as "
            "/yolact/instances."
        )
    options = BagOptions(
        topic=arguments.topic,
        result_topic=f"/{arguments.result_topic.lstrip('/')}",
        mask_encoding=arguments.mask_encoding,
        keyframes=read_keyframe_settings(arguments),
        tracker=read_tracker_settings(arguments),
    )
    with (
        Segmenter.open(
            arguments.model,
            postprocess=read_postprocess_settings(arguments, PostprocessConfig()),
            backend=read_backend_settings(arguments),
        ) as segmenter,
        tqdm(desc="bag", unit="image", mininterval=0.5, delay=0.01) as bar,
    ):

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            report: BagReport = segment_bag(
                arguments.bag, arguments.target, segmenter, options=options, progress=show
            )
        except KeyboardInterrupt:
            bar.close()
            print(
                f"yolact bag: {bar.n} of {bar.total} images are done and kept beside "
                f"{arguments.target}; run the same command again to go on.",
                file=sys.stderr,
            )
            raise
    return _report(report, arguments.target)


def _report(report: object, target: Path) -> int:
    """Say what became of the images; returns the exit status."""
    from yolact_ros.bag.segmented_bag import BagReport

    assert isinstance(report, BagReport)
    words = f"{report.images - len(report.failures)} of {report.images} images of {report.topic}"
    if report.resumed:
        words += f" ({report.resumed} known from a run that was interrupted)"
    print(f"{target}: instances of {words}.")
    for number, reason in list(report.failures.items())[:SHOWN_FAILURES]:
        print(f"yolact bag: image {number}: {reason}", file=sys.stderr)
    if len(report.failures) > SHOWN_FAILURES:
        more = len(report.failures) - SHOWN_FAILURES
        print(f"yolact bag: {more} more images have no result.", file=sys.stderr)
    return 1 if report.failures else 0
