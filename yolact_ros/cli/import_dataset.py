"""`yolact import-dataset`: annotations of other programs become COCO's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.errors import ConfigError

if TYPE_CHECKING:
    from yolact_ros.datasets.importers.coco_writer import ImportReport

FORMATS = ("yolo", "labelme", "voc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "format",
        choices=FORMATS,
        help="yolo: data.yaml with polygons; labelme: a folder of its JSON files; voc: Pascal's "
        "PNGs of classes and objects",
    )
    parser.add_argument("source", type=Path, help="folder of the data set")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--copy", action="store_true", help="copy the images instead of linking")
    parser.add_argument(
        "--classes",
        metavar="A,B,C",
        help="voc: names of the numbers from 1 on (default: Pascal's); labelme: their order",
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="labelme: share of the images that become the split val (default: none)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Read, write, and say what was written and what was left out."""
    from tqdm import tqdm

    from yolact_ros.classes import PASCAL_SBD
    from yolact_ros.datasets.importers.coco_writer import write_coco
    from yolact_ros.datasets.importers.labelme import read_labelme
    from yolact_ros.datasets.importers.voc import read_voc
    from yolact_ros.datasets.importers.yolo import read_yolo

    if not 0 <= arguments.validation < 1:
        raise ConfigError(f"--validation is {arguments.validation}; expected 0 to below 1.")
    classes = tuple(n.strip() for n in (arguments.classes or "").split(",") if n.strip())
    if arguments.format == "yolo":
        classes, images = read_yolo(arguments.source)
    elif arguments.format == "labelme":
        images = read_labelme(arguments.source, validation=arguments.validation)
    else:
        classes = classes or PASCAL_SBD
        images = read_voc(arguments.source, classes)
    bar = tqdm(images, desc="import", unit="image", mininterval=0.5)
    report = write_coco(bar, arguments.output, classes=classes, copy=arguments.copy)
    print(format_report(report))
    return 0


def format_report(report: ImportReport) -> str:
    """A line for each split, and one for each reason to leave annotations out."""
    lines = [
        f"{path}: {report.images[split]} images, {report.instances[split]} instances"
        for split, path in report.files.items()
    ]
    lines += [f"left out: {count} {reason}" for reason, count in report.skipped.most_common()]
    return "\n".join(lines)
