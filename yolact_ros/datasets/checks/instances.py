"""Find oddities in the usable annotations of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.datasets.findings import WARNING, Findings
from yolact_ros.datasets.masks import read_segmentation, segmentation_rle

# Pixels by which boxes and corners may leave the image, because tools round differently.
OUTSIDE_TOLERANCE = 1.5
# Fraction of the image below which an object is tiny: 12x12 pixels at the reference's 550x550,
# half the side of the smallest prior.
TINY_FRACTION = (12 / 550) ** 2
# Mask IoU above which two annotations belong to the same object.
SAME_OBJECT = 0.9
# Rows of the table of mask IoUs per block: an image may have ten thousand objects.
IOU_ROWS = 256


def check_instances(
    annotations: list[dict[str, Any]], image: str, size: tuple[int, int], findings: Findings
) -> list[dict[str, Any]]:
    """Check the annotations of one image.

    Args:
        annotations: annotations from `read_annotation_file`.
        image: its file name.
        size: (height, width) that the annotations refer to.
        findings: receives the findings.

    Returns:
        The annotations that are not crowds.
    """
    usable, rles = [], []
    for annotation in annotations:
        where = f"annotation {annotation['id']} in {image}"
        for kind in _doubts(annotation, size):
            findings.add(WARNING, kind, where)
        if annotation["iscrowd"]:
            continue
        rle = segmentation_rle(annotation["segmentation"], *size)
        area = float(rle_masks.area(rle))
        if area < TINY_FRACTION * size[0] * size[1]:
            findings.add(WARNING, "tiny object", f"{where}: {area:.0f} pixels")
        usable.append(annotation)
        rles.append(rle)
    for start in range(0, len(rles) if len(rles) > 1 else 0, IOU_ROWS):
        rows = rles[start : start + IOU_ROWS]
        overlap = np.triu(rle_masks.iou(rows, rles, [0] * len(rles)), start + 1)
        for row, j in np.argwhere(overlap > SAME_OBJECT):
            first, second = usable[start + row], usable[j]
            same = first["category_id"] == second["category_id"]
            kind = "object annotated twice" if same else "one object with two classes"
            place = f"annotation {first['id']} in {image} and {second['id']}"
            findings.add(WARNING, kind, place)
    return usable


def _doubts(annotation: dict[str, Any], size: tuple[int, int]) -> Iterator[str]:
    """Yield oddities in the positions of mask and box."""
    shape = read_segmentation(annotation["segmentation"], size)
    if not isinstance(shape, str) and _leaves(shape.extent, size):
        yield "polygon that extends beyond the image"
    if "bbox" in annotation:
        x, y, width, height = annotation["bbox"]
        if _leaves((x, y, x + width, y + height), size):
            yield "box that extends beyond the image"


def _leaves(extent: tuple[float, ...], size: tuple[int, int]) -> bool:
    """Return whether x1 y1 x2 y2 is partly outside an image of (height, width) `size`."""
    x1, y1, x2, y2 = extent
    return (
        min(x1, y1) < -OUTSIDE_TOLERANCE
        or x2 > size[1] + OUTSIDE_TOLERANCE
        or y2 > size[0] + OUTSIDE_TOLERANCE
    )
