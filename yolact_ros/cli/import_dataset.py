"""`yolact import-dataset`: convert data sets from labelling tools to COCO format."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_ros.cli.settings import FLAG, FOLDER, distinct_names, documented
from yolact_ros.errors import ConfigError, DatasetError

BOXES = ("ignore", "rectangle", "keep", "drop")
# Option that applies to one format -> that format.
OPTIONS = {"images": "coco", "crowd_as_objects": "coco", "boxes": "yolo"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments.

    Example:
        yolo export/ -o data/parts --validation 0.2

    Options:
        format: coco: JSON from CVAT, Roboflow, Label Studio and others, which is merged and split,
            with its paths corrected; yolo: YAML file of a data set with polygons; labelme: folder
            of JSON files; voc: Pascal VOC or CVAT folder, with PNGs of classes and objects.
        source: folder or file of the data set; several are merged.
        --output: folder to write.
        --copy: copy the images instead of linking to them.
        --classes: voc: names of the class ids from 1 on (default: those in labelmap.txt, or those
            of Pascal VOC); labelme, coco: order of the classes.
        --validation: fraction of the training images to move to the validation split (default:
            none).
        --images: coco: folder of the images.
        --boxes: yolo: use boxes among polygons as neither object nor background (ignore), as
            rectangular masks (rectangle), as boxes for training.learn_boxes (keep), or as
            background (drop) (default: ignore).
        --crowd-as-objects: coco: treat annotations with iscrowd 1 as objects, which is how CVAT
            exports painted masks.
        --strict: stop at the first error instead of counting errors.
    """
    add = documented(parser, add_arguments)
    add("format", choices=("coco", "yolo", "labelme", "voc"))
    add("source", metavar="SOURCE", type=Path, nargs="+")
    add("-o", "--output", **FOLDER, required=True)
    add("--copy", **FLAG)
    add("--classes", type=distinct_names, default=(), metavar="A,B,C")
    add("--validation", type=float, default=0.0, metavar="FRACTION")
    add("--images", **FOLDER)
    add("--boxes", choices=BOXES)
    add("--crowd-as-objects", **FLAG)
    add("--strict", **FLAG)


def run(arguments: argparse.Namespace) -> int:
    """Convert the data sets and print a summary."""
    from itertools import chain

    from tqdm import tqdm

    from yolact_ros.classes import PASCAL_SBD
    from yolact_ros.datasets.findings import Findings, format_findings
    from yolact_ros.datasets.importers.coco import read_coco
    from yolact_ros.datasets.importers.coco_writer import write_coco
    from yolact_ros.datasets.importers.labelme import read_labelme
    from yolact_ros.datasets.importers.voc import read_voc
    from yolact_ros.datasets.importers.yolo import read_yolo

    if not 0 <= arguments.validation < 1:
        raise ConfigError(
            f"--validation is {arguments.validation}; expected a fraction from 0 to less than 1."
        )
    for option, format_ in OPTIONS.items():
        if getattr(arguments, option) and arguments.format != format_:
            flag = option.replace("_", "-")
            raise ConfigError(f"--{flag} applies to {format_}, not to {arguments.format}.")
    if arguments.classes and arguments.format == "yolo":
        raise ConfigError("--classes does not apply to yolo, whose YAML file names the classes.")
    findings = Findings()
    names: dict[str, None] = dict.fromkeys(arguments.classes)
    parts = []
    for source in arguments.source:
        if not source.exists():
            raise DatasetError(f"{source} does not exist; name the folder or file of a data set.")
        if arguments.format == "coco":
            classes, images = read_coco(
                source,
                findings,
                images=arguments.images,
                crowd_as_objects=arguments.crowd_as_objects,
            )
        elif arguments.format == "yolo":
            classes, images = read_yolo(source, findings, boxes=arguments.boxes or "ignore")
        elif arguments.format == "labelme":
            classes, images = (), read_labelme(source, findings)
        else:
            classes, images = read_voc(source, arguments.classes or PASCAL_SBD, findings)
        names.update(dict.fromkeys(classes))
        parts.append(images)
    bar = tqdm(chain(*parts), desc="import", unit="image", mininterval=0.5)
    report = write_coco(
        bar,
        arguments.output,
        findings=findings,
        classes=tuple(names),
        drop_empty_classes=arguments.format == "coco" and not arguments.classes,
        copy=arguments.copy,
        validation=arguments.validation,
        strict=arguments.strict,
    )
    for split, path in report.files.items():
        print(f"{path}: {report.images[split]} images, {report.instances[split]} instances")
    print(format_findings(findings))
    return 0
