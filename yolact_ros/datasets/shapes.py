"""Check one entry of `annotations`: compare its mask, box and area."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from yolact_ros.datasets.findings import ERROR, NOTE, WARNING, Findings
from yolact_ros.datasets.masks import read_segmentation

# The side of a box may differ from that of its mask by the larger of these.
BOX_PIXELS = 2.0
BOX_FRACTION = 0.1


def read_shapes(
    entry: Mapping[str, Any], size: tuple[int, int], crowd: bool, where: str, findings: Findings
) -> dict[str, Any] | None:
    """Read the mask, box and area of an annotation; None if it has neither mask nor box.

    Args:
        entry: entry of the file.
        size: (height, width) of the image.
        crowd: whether it is a crowd.
        where: identifies the annotation in findings.
        findings: receives the findings.

    Returns:
        `segmentation`, `iscrowd`, and `bbox`, `area`, `box_only` as in `AnnotationFile`;
        `corners` states whether the box fits its mask only if read as x1 y1 x2 y2.
    """
    segmentation, box = entry.get("segmentation"), _numbers(entry.get("bbox"))
    if entry.get("bbox") is not None and box is None:
        findings.add(ERROR, "box that is not x, y, width, height", where)
    if box is not None and segmentation in (None, [], {}, ""):
        return _read_box(entry, box, size, crowd, where, findings)
    shape = read_segmentation(segmentation, size)
    if isinstance(shape, str):
        findings.add(ERROR, f"annotation {shape}", where)
        return None
    if shape.broken:
        findings.add(WARNING, "broken polygon beside usable ones", where)
    usable: dict[str, Any] = {"segmentation": shape.segmentation, "iscrowd": int(crowd)}
    if crowd:
        findings.add(NOTE, "crowd (iscrowd 1), neither object nor background", where)
    if box is not None:
        fault = _box_fault(box, shape.extent, size)
        if fault is None:
            usable["bbox"] = list(box)
        else:
            findings.add(*fault, where)
        corners = (*box[:2], box[2] - box[0], box[3] - box[1])
        usable["corners"] = fault is not None and not _box_fault(corners, shape.extent, size)
    area = entry.get("area")
    if isinstance(area, (int, float)) and not isinstance(area, bool):
        if math.isfinite(area) and 0 < area <= size[0] * size[1]:
            usable["area"] = area
    return usable


def _read_box(
    entry: Mapping[str, Any],
    box: tuple[float, ...],
    size: tuple[int, int],
    crowd: bool,
    where: str,
    findings: Findings,
) -> dict[str, Any] | None:
    x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
    x2, y2 = min(box[0] + box[2], size[1]), min(box[1] + box[3], size[0])
    if x2 - x1 < 1 or y2 - y1 < 1:
        findings.add(ERROR, "annotation without a segmentation or a usable box", where)
        return None
    kind = "box without a mask, which counts only with training.learn_boxes"
    if crowd:
        kind = "crowd (iscrowd 1), neither object nor background"
    findings.add(NOTE, kind, where)
    rectangle = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    usable = {"segmentation": rectangle, "iscrowd": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    return usable if crowd else {**usable, "box_only": True}


def _numbers(box: Any) -> tuple[float, ...] | None:
    """Read four finite numbers; None for anything else."""
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return None
    try:
        values = tuple(float(v) for v in box if not isinstance(v, (bool, str)))
    except (TypeError, ValueError, OverflowError):
        return None
    return values if len(values) == 4 and all(map(math.isfinite, values)) else None


def _box_fault(
    box: tuple[float, ...], extent: tuple[float, ...], size: tuple[int, int]
) -> tuple[str, str] | None:
    """Return severity and kind of a fault of x y width height, given its mask's x1 y1 x2 y2."""
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return ERROR, "box without an area"
    limits = (size[1], size[0], size[1], size[0])
    if x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0:
        return ERROR, "box outside the image"
    sides = (x, y, x + width, y + height)
    x1, y1, x2, y2 = extent
    tolerance = [max(BOX_PIXELS, BOX_FRACTION * side) for side in (x2 - x1, y2 - y1)] * 2
    if all(abs(a - b) <= t for a, b, t in zip(sides, extent, tolerance, strict=True)):
        return None
    clipped = [min(max(v, 0.0), limit) for v, limit in zip(sides, limits, strict=True)]
    inside = [min(max(v, 0.0), limit) for v, limit in zip(extent, limits, strict=True)]
    if all(abs(a - b) <= t for a, b, t in zip(clipped, inside, tolerance, strict=True)):
        return None
    return WARNING, "box that does not match its mask"
