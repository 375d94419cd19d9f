"""The mean average precision that the reference's `eval.py` prints, for comparing with its logs.

Unlike COCOeval: an IoU must exceed the threshold, corners of detected boxes are cut to whole
pixels, true instances narrower or lower than 4/550 of the image are left out, crowds do not count
at all (a detection on one is false), and a class that is detected but not there has AP 0. The
published numbers are COCOeval's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.evaluate.coco_tables import CocoTables

THRESHOLDS = tuple(np.arange(50, 100, 5) / 100)
SMALLEST_SIDE = 4 / 550  # of a true instance, as a share of the image's side
RECALLS = np.arange(101) / 100


@dataclass(frozen=True)
class ReferenceMap:
    """AP in [0, 1], of boxes and of masks; 0 where nothing is to be found.

    Attributes:
        box, mask: by IoU threshold, 0.50 to 0.95.
    """

    box: Mapping[float, float]
    mask: Mapping[float, float]

    @property
    def box_mean(self) -> float:
        """Over all thresholds."""
        return float(np.mean(list(self.box.values())))

    @property
    def mask_mean(self) -> float:
        """Over all thresholds."""
        return float(np.mean(list(self.mask.values())))


def reference_map(tables: CocoTables) -> ReferenceMap:
    """Compute it from true instances and detections."""
    truth = [row for row in tables.truth if _counts(row, tables.images[row["image_id"]])]
    return ReferenceMap(
        box=_map(truth, tables.found["bbox"], "bbox"),
        mask=_map(truth, tables.found["segm"], "segmentation"),
    )


def average_precision(scores: np.ndarray, true: np.ndarray, *, positives: int) -> float:
    """Mean of the best precision at 101 recalls.

    Args:
        scores: (N,) of detections.
        true: (N,) bool, whether each matched a true instance.
        positives: true instances.
    """
    if not positives:
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    precision = hits / np.arange(1, len(order) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / positives, RECALLS, side="left")
    return float(np.append(precision, 0.0)[places].mean())


def match_greedily(iou: np.ndarray, *, threshold: float) -> np.ndarray:
    """Let each detection take the free true instance that it overlaps most, above a threshold.

    Args:
        iou: (D, T), detections best first.
        threshold: that the IoU must exceed.

    Returns:
        (D,) bool, whether each took one.
    """
    matched = np.zeros(len(iou), bool)
    free = np.ones(iou.shape[1], bool)
    for i, row in enumerate(iou):
        candidates = np.where(free & (row > threshold), row, -1.0)
        if candidates.size and candidates.max() >= 0:
            matched[i] = True
            free[int(candidates.argmax())] = False
    return matched


def _map(
    truth: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], key: str
) -> dict[float, float]:
    """Mean over the classes that are there or detected, for each threshold."""
    groups: dict[tuple[int, int], tuple[list[Any], list[Any]]] = {}
    for side, rows in enumerate((truth, found)):
        for row in rows:
            place = row["category_id"], row["image_id"]
            groups.setdefault(place, ([], []))[side].append(row)
    classes = sorted({class_id for class_id, _ in groups})
    ious = {place: _sorted_iou(there, seen, key) for place, (there, seen) in groups.items()}
    result = {}
    for threshold in THRESHOLDS:
        values = []
        for class_id in classes:
            scores, true, positives = [np.zeros(0)], [np.zeros(0, bool)], 0
            for place, (there, _) in groups.items():
                if place[0] == class_id:
                    own_scores, iou = ious[place]
                    scores.append(own_scores)
                    true.append(match_greedily(iou, threshold=threshold))
                    positives += len(there)
            values.append(
                average_precision(
                    np.concatenate(scores), np.concatenate(true), positives=positives
                )
            )
        result[float(threshold)] = float(np.mean(values)) if values else 0.0
    return result


def _sorted_iou(
    truth: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of detections, best first, and their IoU with true instances, (D, T)."""
    found = sorted(found, key=lambda row: -row["score"])
    scores = np.array([row["score"] for row in found], np.float64)
    if not truth or not found:
        return scores, np.zeros((len(found), len(truth)))
    seen = [row[key] for row in found]
    if key == "bbox":
        seen = [_whole_pixels(box) for box in seen]
    iou = rle_masks.iou(seen, [row[key] for row in truth], [0] * len(truth))
    return scores, np.asarray(iou, np.float64).reshape(len(found), len(truth))


def _whole_pixels(box: Sequence[float]) -> list[float]:
    """Cut the corners of x y width height to whole pixels."""
    x, y, width, height = box
    left, top = np.trunc(x), np.trunc(y)
    return [left, top, np.trunc(x + width) - left, np.trunc(y + height) - top]


def _counts(row: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    width, height = row["bbox"][2] / image["width"], row["bbox"][3] / image["height"]
    return not row["iscrowd"] and width > SMALLEST_SIDE and height > SMALLEST_SIDE
