"""`yolact simulate`: render annotated images or clips of a simulated table top."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

LARGEST_SIDE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact simulate`."""
    parser.add_argument(
        "what",
        choices=("images", "clip"),
        help="single pictures, or a video from a moving camera",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--frames", type=_positive, default=100, metavar="N")
    parser.add_argument(
        "--seed", type=_seed, default=0, help="the same seed yields the same bytes"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=(480, 640),
        metavar="WIDTHxHEIGHT",
        help="size of the pictures in pixels (default: 640x480)",
    )
    parser.add_argument(
        "--fps", type=_rate, default=20.0, help="frame rate of a clip (default: %(default)s)"
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="number of processes; does not affect the result (default: %(default)s)",
    )
    parser.add_argument(
        "--depth", action="store_true", help="also write depth images (always for a clip)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Render the data and print where they are."""
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
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if not match or not all(32 <= int(side) <= LARGEST_SIDE for side in match.groups()):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a size; expected WIDTHxHEIGHT of 32 to {LARGEST_SIDE} px, "
            "e.g. 640x480"
        )
    width, height = (int(side) for side in match.groups())
    return height, width


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer from 1 to 1000000")
    return int(text)


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer from 0 to 2^31 - 1")
    return int(text)


def _rate(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 0.1 to 1000")
    return value
