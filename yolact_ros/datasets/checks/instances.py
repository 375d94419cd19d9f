"""What is wrong with the annotations of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.datasets.checks.findings import ERROR, WARNING, Findings
from yolact_ros.datasets.masks import is_polygon, segmentation_fault, segmentation_rle

# Pixels by which boxes and corners may leave the image: tools round in their own ways.
OUTSIDE_TOLERANCE = 1.5
# Share of the image below which an object is tiny: 12x12 pixels at the reference's 550x550, half
# the side of the smallest prior.
TINY_SHARE = (12 / 550) ** 2
# Mask IoU above which two annotations are of one object.
SAME_OBJECT = 0.9
# Box IoU below which an annotation's box is not that of its mask.
SAME_BOX = 0.5


def check_instances(
    annotations: list[dict[str, Any]], size: tuple[int, int], findings: Findings
) -> list[dict[str, Any]]:
    """Look at the annotations of one image.

    Args:
        annotations: as the file has them, each with `where`, the words that name it.
        size: (height, width) of the image.
        findings: faults are added here.

    Returns:
        The usable ones that are no crowds.
    """
    usable, rles = [], []
    for annotation in annotations:
        where = annotation["where"]
        fault = segmentation_fault(annotation.get("segmentation"), size)
        if fault:
            findings.add(ERROR, f"annotation {fault}", where)
            continue
        rle = segmentation_rle(annotation["segmentation"], *size)
        area = float(rle_masks.area(rle))
        if not area:
            findings.add(ERROR, "annotation whose mask has no pixel", where)
            continue
        for severity, kind in _doubts(annotation, rle, size):
            findings.add(severity, kind, where)
        if annotation.get("iscrowd"):
            continue
        if area < TINY_SHARE * size[0] * size[1]:
            findings.add(WARNING, "tiny object", f"{where}: {area:.0f} pixels")
        usable.append(annotation)
        rles.append(rle)
    if len(rles) > 1:
        overlap = np.triu(rle_masks.iou(rles, rles, [0] * len(rles)), 1)
        for i, j in np.argwhere(overlap > SAME_OBJECT):
            first, second = usable[i], usable[j]
            same = first["category_id"] == second["category_id"]
            kind = "object annotated twice" if same else "one object of two classes"
            findings.add(WARNING, kind, f"{first['where']} and {second.get('id')}")
    return usable


def _doubts(
    annotation: Mapping[str, Any], rle: dict[str, Any], size: tuple[int, int]
) -> Iterator[tuple[str, str]]:
    """Severity and kind of what is odd about a usable annotation."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if is_polygon(polygon)]
        if len(polygons) < len(segmentation):
            yield WARNING, "broken polygon beside usable ones"
        corners = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
        if _leaves(corners.min(axis=0), corners.max(axis=0), size):
            yield WARNING, "polygon that leaves the image"
    box = annotation.get("bbox")
    if box is None:
        return
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError):
        yield ERROR, "box that is not x, y, width, height"
        return
    height, width = size
    if not np.isfinite([x, y, w, h]).all() or w <= 0 or h <= 0:
        yield ERROR, "box without an area"
    elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
        yield ERROR, "box outside the image"
    elif _leaves(np.array([x, y]), np.array([x + w, y + h]), size):
        yield WARNING, "box that leaves the image"
    elif rle_masks.iou([[x, y, w, h]], [rle_masks.toBbox(rle).tolist()], [0])[0, 0] < SAME_BOX:
        yield WARNING, "box that is not that of its mask"


def _leaves(low: np.ndarray, high: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether x y `low` or `high` lie outside an image of (height, width) `size`."""
    limit = np.array([size[1], size[0]]) + OUTSIDE_TOLERANCE
    return bool((low < -OUTSIDE_TOLERANCE).any() or (high > limit).any())
