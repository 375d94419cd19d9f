"""`yolact simulate`: render annotated images or clips of a simulated tabletop."""

from __future__ import annotations

import argparse
import re

from yolact_ros.cli.settings import FLAG, FOLDER, documented, number

LARGEST_SIDE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact simulate`.

    Example:
        images --seed 1 --frames 100 -o data/tabletop

    Options:
        what: images: single images; clip: a video from a moving camera.
        --output: folder to write.
        --frames: number of images to render.
        --seed: seed of the random scenes; the same seed produces identical files.
        --size: size of the images in pixels (default: 640x480).
        --fps: frame rate of a clip, in images per second.
        --processes: number of processes that render; the result does not depend on it.
        --depth: also write depth images (a clip always has them).
    """
    add = documented(parser, add_arguments)
    add("what", choices=("images", "clip"))
    add("-o", "--output", **FOLDER, required=True)
    add("--frames", **number(1, 1_000_000, 100))
    add("--seed", **number(0, 2**31 - 1, 0))
    add("--size", type=_size, default=(480, 640), metavar="WIDTHxHEIGHT")
    add("--fps", **number(0.1, 1000, 20.0))
    add("--processes", **number(1, 1_000_000, 1))
    add("--depth", **FLAG)


def run(arguments: argparse.Namespace) -> int:
    """Render the data and print where they are."""
    from yolact_ros.simulate.generate import write_clip, write_images

    common = {name: getattr(arguments, name) for name in ("seed", "frames", "size")}
    if arguments.what == "clip":
        write_clip(arguments.output, **common, fps=arguments.fps)
    else:
        how = {name: getattr(arguments, name) for name in ("processes", "depth")}
        write_images(arguments.output, **common, **how)
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
