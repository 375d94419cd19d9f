"""`yolact prototypes`: draw the prototypes of an image and how they add up to masks."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_ros.cli.inference import add_model_argument, add_segmenter_arguments, open_segmenter
from yolact_ros.cli.settings import documented, number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact prototypes`.

    Example:
        picture.jpg -o out/prototypes.png

    Options:
        image: image file.
        --output: image to write.
        --instances: number of masks to explain.
    """
    add = documented(parser, add_arguments)
    add("image", metavar="IMAGE", type=Path)
    add("-o", "--output", type=Path, required=True, metavar="PNG")
    add("--instances", **number(1, 100, 4))
    add_model_argument(parser)
    add_segmenter_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw the prototypes and write the image."""
    from yolact_ros.errors import ConfigError
    from yolact_ros.evaluate.prototypes import draw_assembly_sheet, take_apart
    from yolact_ros.runtime.images.decoding import read_bgr
    from yolact_ros.runtime.images.files import write_picture

    if arguments.output.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(
            f"{arguments.output} is not the name of an image file; expected a name that ends in "
            ".png, .jpg or .webp."
        )
    image = read_bgr(arguments.image)
    with open_segmenter(arguments) as segmenter:
        assembly = take_apart(segmenter, image)
        names = segmenter.description.model.classes
    sheet = draw_assembly_sheet(image, assembly, class_names=names, instances=arguments.instances)
    write_picture(arguments.output, sheet)
    shown = min(arguments.instances, len(assembly.detections))
    print(f"{assembly.prototypes.shape[2]} prototypes, {shown} masks -> {arguments.output}")
    return 0
