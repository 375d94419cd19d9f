"""Find a model's mistakes: missed, invented, misclassified, poorly outlined instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.evaluate.coco_tables import CocoTables
from yolact_ros.evaluate.confusion import match_instances

MATCH_IOU = 0.5
# A mask below the first IoU is poor; above the second, a detection still belongs to an instance of
# its class.
GOOD_IOU, NEAR_IOU = 0.75, 0.1

MISSED, INVENTED, WRONG_CLASS, POOR_MASK = "missed", "invented", "wrong_class", "poor_mask"
KINDS = {
    MISSED: "instances that no detection matches, largest first",
    INVENTED: "detections that match no instance, highest score first",
    WRONG_CLASS: "detections that match an instance of another class, highest score first",
    POOR_MASK: "masks of the right class with an IoU below 0.75, lowest first",
}


@dataclass(frozen=True, eq=False)
class MatchedImage:
    """Holds the true instances of an image, its detections, and their matches.

    Attributes:
        image_id: id of the image.
        truth: T COCO annotations, without crowds.
        found: D detections in the same form, with their class `score`.
        iou: (D, T) float64 mask IoU.
        matches: (D,) int64, index of the true instance of each detection, or -1.
    """

    image_id: int
    truth: Sequence[dict[str, Any]]
    found: Sequence[dict[str, Any]]
    iou: np.ndarray
    matches: np.ndarray

    @property
    def true_classes(self) -> np.ndarray:
        """Return the (T,) int64 class ids of the true instances."""
        return np.array([row["category_id"] for row in self.truth], np.int64)

    @property
    def found_classes(self) -> np.ndarray:
        """Return the (D,) int64 class ids of the detections."""
        return np.array([row["category_id"] for row in self.found], np.int64)


@dataclass(frozen=True, eq=False)
class Mistake:
    """Describes one mistake.

    Attributes:
        kind: one of `KINDS`.
        image: the image.
        truth: index of the instance in the image; None if there is none.
        found: index of the detection; None if there is none.
        iou: IoU of the two masks or, if there is only one, with the nearest mask of the other
            side; 0 if there is none.
        weight: severity among mistakes of its kind: pixels of a missed instance, score of a false
            detection, 1 - IoU of a poor mask.
    """

    kind: str
    image: MatchedImage
    truth: int | None
    found: int | None
    iou: float
    weight: float


def match_tables(tables: CocoTables, *, score_threshold: float) -> list[MatchedImage]:
    """Match the detections above a class score with the true instances, image by image.

    Masks match from an IoU of 0.5, in descending order of class score; see `match_instances`.
    Unmatched detections with at least half of their pixels on a crowd of their class are ignored.
    """
    truth: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in tables.images}
    found: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in tables.images}
    for row in tables.truth:
        truth[row["image_id"]].append(row)
    for box, mask in zip(tables.found["bbox"], tables.found["segm"], strict=True):
        if box["score"] >= score_threshold:
            found[mask["image_id"]].append({**mask, "score": box["score"]})
    return [_match_image(i, truth[i], found[i]) for i in tables.images]


def _match_image(
    image_id: int, truth: list[dict[str, Any]], found: list[dict[str, Any]]
) -> MatchedImage:
    crowd = np.array([row["iscrowd"] for row in truth], bool)
    iou = mask_iou_matrix(found, truth)
    instances = [row for row in truth if not row["iscrowd"]]
    scores = np.array([row["score"] for row in found])
    classes = np.array([row["category_id"] for row in truth], np.int64)
    same = np.array([row["category_id"] for row in found], np.int64)[:, None] == classes
    matches = match_instances(iou[:, ~crowd], scores, threshold=MATCH_IOU, same=same[:, ~crowd])
    on_crowd = ((iou >= MATCH_IOU) & same & crowd).any(axis=1)
    kept = (matches >= 0) | ~on_crowd
    return MatchedImage(
        image_id=image_id,
        truth=instances,
        found=[row for row, keep in zip(found, kept, strict=True) if keep],
        iou=iou[kept][:, ~crowd],
        matches=matches[kept],
    )


def mask_iou_matrix(
    found: Sequence[dict[str, Any]], truth: Sequence[dict[str, Any]]
) -> np.ndarray:
    """Compute the IoU of D masks with T masks; for a crowd, the fraction of the detection on it.

    Returns:
        (D, T) float64.
    """
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    return np.asarray(
        rle_masks.iou(
            [row["segmentation"] for row in found],
            [row["segmentation"] for row in truth],
            [row["iscrowd"] for row in truth],
        )
    )


def find_mistakes(image: MatchedImage) -> list[Mistake]:
    """List the mistakes in an image; each instance or detection belongs to at most one.

    An unmatched detection and an unmatched instance of the same class that overlap a little are
    one poor mask, not a missed and an invented instance.
    """
    true_classes, found_classes = image.true_classes, image.found_classes
    scores = np.array([row["score"] for row in image.found])
    mistakes = []

    def poor_mask(found: int, truth: int) -> Mistake:
        iou = float(image.iou[found, truth])
        return Mistake(POOR_MASK, image, truth, found, iou, 1 - iou)

    for found in np.flatnonzero(image.matches >= 0).tolist():
        truth = int(image.matches[found])
        iou = float(image.iou[found, truth])
        if true_classes[truth] != found_classes[found]:
            mistakes.append(Mistake(WRONG_CLASS, image, truth, found, iou, float(scores[found])))
        elif iou < GOOD_IOU:
            mistakes.append(poor_mask(found, truth))
    left = np.flatnonzero(image.matches < 0)
    missed = np.setdiff1d(np.arange(len(image.truth)), image.matches)
    same = found_classes[left][:, None] == true_classes[missed]
    near = np.where(same, image.iou[np.ix_(left, missed)], 0.0)
    pairs = match_instances(near, scores[left], threshold=NEAR_IOU)
    for found, pair in zip(left.tolist(), pairs.tolist(), strict=True):
        if pair >= 0:
            mistakes.append(poor_mask(found, int(missed[pair])))
        else:
            iou = float(image.iou[found].max(initial=0.0))
            mistakes.append(Mistake(INVENTED, image, None, found, iou, float(scores[found])))
    for truth in np.delete(missed, pairs[pairs >= 0]).tolist():
        iou = float(image.iou[:, truth].max(initial=0.0))
        mistakes.append(
            Mistake(MISSED, image, truth, None, iou, float(image.truth[truth]["area"]))
        )
    return mistakes


def worst(mistakes: Sequence[Mistake], kind: str, *, count: int) -> list[Mistake]:
    """Return the worst mistakes of a kind, worst first."""
    ranked = sorted((m for m in mistakes if m.kind == kind), key=lambda m: -m.weight)
    return ranked[:count]
