"""Adapt the annotations of other programs to the true size of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.datasets.files import decode_picture, read_picture, report_rotation
from yolact_ros.datasets.findings import ERROR, NOTE, Findings
from yolact_ros.datasets.masks import read_segmentation, segmentation_rle
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown
from yolact_ros.runtime.images.headers import ImageHeader, read_header

# Name of a split in exports -> its name here.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SAME_ASPECT = 0.01  # maximum relative difference of two scales if an image was only resized


@dataclass(frozen=True)
class ForeignInstance:
    """Holds an annotated object.

    Attributes:
        name: name of its class.
        segmentation: in COCO's format: polygons (x1 y1 x2 y2 ... in pixels) or RLE.
        crowd: neither object nor background.
        where: identifies it in findings.
        box: x y width height of an object without a mask; otherwise None.
    """

    name: str
    segmentation: Any
    crowd: bool = False
    where: str = ""
    box: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ForeignImage:
    """Holds an annotated image.

    Attributes:
        split: e.g. `train`.
        path: path of the picture, or only its name if `data` holds it.
        size: (height, width) that the instances refer to; None for the picture's.
        instances: usable instances.
        data: content of the picture if it has no file.
    """

    split: str
    path: Path
    size: tuple[int, int] | None
    instances: Sequence[ForeignInstance]
    data: bytes | None = None


def fit_to_picture(image: ForeignImage, findings: Findings) -> ForeignImage | None:
    """Open the image file, and adapt size and instances of the image to it.

    Labels of a picture that was resized afterwards are scaled. Labels on the stored pixels of a
    picture rotated by EXIF keep the stored size, which tells `CocoDataset` how to read it.

    Returns:
        The image with its size; None if it cannot be used, which is counted.
    """
    name = shown(image.path)
    try:
        data = read_picture(image.path) if image.data is None else image.data
    except DatasetError:
        findings.add(ERROR, "image that cannot be read", name)
        return None
    grey = decode_picture(data, grey=True)
    if grey is None:
        findings.add(ERROR, "image that cannot be decoded", name)
        return None
    header = read_header(data) or ImageHeader("", *grey.shape)
    report_rotation(findings, name, image.size, header)
    if image.size is None or image.size in (header.upright, header.stored):
        return replace(image, size=image.size or header.upright)
    for size in dict.fromkeys((header.upright, header.stored)):
        y, x = size[0] / image.size[0], size[1] / image.size[1]
        if abs(x / y - 1) <= SAME_ASPECT:
            place = f"{name}: {_format_size(image.size)} to {_format_size(size)}"
            findings.add(NOTE, "image that was resized; its annotations are scaled", place)
            return replace(image, size=size, instances=_scale(image, size, (x, y)))
    stated = f"{name}: {_format_size(header.upright)}, annotated as {_format_size(image.size)}"
    findings.add(ERROR, "image whose size differs from its annotations", stated)
    return None


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _scale(
    image: ForeignImage, size: tuple[int, int], scale: tuple[float, float]
) -> list[ForeignInstance]:
    scaled = []
    for instance in image.instances:
        shape = read_segmentation(instance.segmentation, image.size or size)
        segmentation, box = instance.segmentation, instance.box
        if box is not None:
            box = tuple(v * scale[i % 2] for i, v in enumerate(box))
        elif isinstance(shape, str):
            pass  # counted when it is written
        elif isinstance(shape.segmentation, list):
            segmentation = [
                [round(v * scale[i % 2], 2) for i, v in enumerate(polygon)]
                for polygon in shape.segmentation
            ]
        else:
            mask = rle_masks.decode(segmentation_rle(segmentation, *(image.size or size)))
            mask = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
            segmentation = encode_mask(mask)
        scaled.append(replace(instance, segmentation=segmentation, box=box))
    return scaled


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a (H, W) mask as COCO's compressed RLE with JSON values."""
    rle = rle_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}
