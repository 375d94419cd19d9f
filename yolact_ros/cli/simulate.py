"""`yolact simulate`: annotated images and clips of a simulated table top; clips of photographs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from yolact_ros.errors import ConfigError

LARGEST_SIDE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "what",
        choices=("images", "clip", "stills"),
        help="single pictures; a moving camera; a camera that moves over annotated photographs",
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="JSON", help="stills: of the photographs, as COCO's"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="stills: the photographs")
    parser.add_argument(
        "--clips", type=_positive, default=10, metavar="N", help="stills: photographs to use"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--frames", type=_positive, default=100, metavar="N")
    parser.add_argument("--seed", type=_seed, default=0, help="the same seed gives the same bytes")
    parser.add_argument(
        "--size",
        type=_size,
        default=(480, 640),
        metavar="WIDTHxHEIGHT",
        help="of the pictures in pixels (default: 640x480)",
    )
    parser.add_argument("--fps", type=_rate, default=20.0, help="of a clip (default: %(default)s)")
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
    if arguments.what == "stills":
        return _write_stills(arguments)
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


def _write_stills(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from yolact_ros.datasets.coco import CocoDataset
    from yolact_ros.simulate.stills import Photograph, write_stills

    if not arguments.annotations or not arguments.images:
        raise ConfigError("stills needs --annotations and --images: the photographs.")
    dataset = CocoDataset(arguments.annotations, arguments.images)
    found = [i for i in range(len(dataset)) if dataset.has_instances(i)]
    count = min(arguments.clips, len(found))
    chosen = [found[i * len(found) // count] for i in range(count)]

    def photographs() -> Iterator[Photograph]:
        for index in tqdm(chosen, desc="stills", unit="clip", mininterval=0.5):
            sample = dataset.load(index)
            kept = ~sample.crowd
            yield Photograph(sample.image, sample.masks[kept], sample.class_ids[kept])

    write_stills(
        arguments.output,
        photographs(),
        classes=dataset.classes,
        frames=arguments.frames,
        seed=arguments.seed,
    )
    print(f"{count} clips of {arguments.frames} frames, instances.json in {arguments.output}")
    return 0


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if not match or not all(32 <= int(side) <= LARGEST_SIDE for side in match.groups()):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size; expected WIDTHxHEIGHT of 32 to {LARGEST_SIDE} pixels, "
            "e.g. 640x480"
        )
    width, height = (int(side) for side in match.groups())
    return height, width


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of 1 to 1000000")
    return int(text)


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number of 0 to 2^31 - 1")
    return int(text)


def _rate(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of 0.1 to 1000")
    return value
