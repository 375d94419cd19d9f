"""`yolact simulate`: annotated images or clips of a simulated table top."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "what", choices=("images", "clip"), help="single pictures, or a moving camera"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--frames", type=_positive, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument(
        "--size",
        type=_size,
        default=(480, 640),
        metavar="WIDTHxHEIGHT",
        help="of the pictures in pixels (default: 640x480)",
    )
    parser.add_argument("--fps", type=float, default=20.0, help="of a clip (default: %(default)s)")
    parser.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="that draw images; the result is the same (default: %(default)s)",
    )
    parser.add_argument(
        "--depth", action="store_true", help="write depth images too (a clip always has them)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the data and say where they are."""
    from yolact_ros.simulate.generate import write_clip, write_images

    if arguments.what == "clip":
        write_clip(
            arguments.output,
            seed=arguments.seed,
            frames=arguments.frames,
            size=arguments.size,
            fps=arguments.fps,
        )
    else:
        write_images(
            arguments.output,
            seed=arguments.seed,
            frames=arguments.frames,
            size=arguments.size,
            processes=arguments.processes,
            depth=arguments.depth,
        )
    print(f"{arguments.frames} frames, instances.json and cameras.json in {arguments.output}")
    return 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(int(side) for side in match.groups()) < 32:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; expected WIDTHxHEIGHT of 32 pixels or more, e.g. 640x480"
        )
    width, height = (int(side) for side in match.groups())
    return height, width


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
