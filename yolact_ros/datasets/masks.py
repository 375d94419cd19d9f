"""Masks as COCO's files have them: polygons, run lengths, compressed run lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks

DIGIT_BITS = 5


def is_polygon(points: Any) -> bool:
    """Whether `points` is x1 y1 x2 y2 ... of three corners or more, all finite."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    return all(isinstance(p, (int, float)) and np.isfinite(p) for p in points)


def segmentation_fault(segmentation: Any, size: tuple[int, int] | None) -> str | None:
    """Why no mask can be made of an annotation's `segmentation`; None if one can.

    pycocotools fills a mask whose runs are too few with whatever the memory held, so run lengths
    are added up here.

    Args:
        segmentation: of the annotation file.
        size: (height, width) of the image; None if the file does not say.
    """
    if isinstance(segmentation, list):
        return None if any(map(is_polygon, segmentation)) else "without a usable polygon"
    if not isinstance(segmentation, Mapping) or "counts" not in segmentation:
        return "without a segmentation"
    own_size = segmentation.get("size")
    if not isinstance(own_size, (list, tuple)) or len(own_size) != 2:
        return "with a mask without a size"
    if size is not None and tuple(own_size) != tuple(size):
        return "with a mask of another size than the image"
    try:
        runs = run_lengths(segmentation["counts"])
        complete = bool((runs >= 0).all()) and int(runs.sum()) == own_size[0] * own_size[1]
    except (TypeError, ValueError, OverflowError):
        complete = False
    return None if complete else "with a corrupt run-length mask"


def run_lengths(counts: list[int] | str | bytes) -> np.ndarray:
    """Lengths of the runs of zeros and ones in turn, of plain or compressed counts.

    Returns:
        (R,) int64.

    Raises:
        ValueError: the string does not end with the last digit of a number, or holds a character
            that is no digit (cocodataset/cocoapi `common/maskApi.c::rleFrString`).
    """
    if isinstance(counts, list):
        return np.asarray(counts, np.int64)
    text = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    if not len(digits):
        return digits
    last = (digits & 32) == 0
    if digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise ValueError("The counts are not COCO's run lengths.")
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    lengths = np.diff(np.concatenate([starts, [len(digits)]]))
    if lengths.max() > 12:
        raise ValueError("The counts hold a number of more than 60 bits.")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (DIGIT_BITS * place), starts)
    negative = (digits[last] & 16) != 0
    numbers -= np.where(negative, np.int64(1) << (DIGIT_BITS * lengths), 0)
    # From the fourth number on each is the difference to the run two before.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def segmentation_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Turn polygons or RLE of an annotation into compressed RLE, as pycocotools takes it.

    Args:
        segmentation: one in which `segmentation_fault` sees nothing.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if is_polygon(polygon)]
        return rle_masks.merge(rle_masks.frPyObjects(polygons, height, width))
    if isinstance(segmentation["counts"], list):
        return rle_masks.frPyObjects(segmentation, height, width)
    counts = segmentation["counts"]
    return {
        "size": [height, width],
        "counts": counts.encode() if isinstance(counts, str) else counts,
    }


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray | None:
    """Turn polygons or RLE into an (H, W) uint8 mask; None when it is of another size."""
    mask = rle_masks.decode(segmentation_rle(segmentation, height, width))
    return np.ascontiguousarray(mask) if mask.shape == (height, width) else None
