"""Select detections from the network's raw output: threshold, NMS, limits.

Fast NMS equals dbolya/yolact `layers/functions/detection.py` for all detections above the
threshold, and with `all_classes` also for those below. Thresholding first makes Fast NMS thirty
times faster and changes nothing above the threshold, because a candidate is suppressed only by
better-scored ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from yolact_ros.config import PostprocessConfig

# Up to this mean number of pairs per class, comparing all classes at once takes less time.
FEW_PAIRS = 500

# (n,) int64 priors, ascending, to their (n, 4) boxes and (n, K) coefficients.
Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Selection:
    """Holds the selected detections in network coordinates, best first; N may be 0.

    Attributes:
        boxes: (N, 4) float32 x1 y1 x2 y2 as fractions of the network's input, not clipped.
        scores: (N,) float32 class scores.
        class_ids: (N,) int64.
        coefficients: (N, K) float32.
        mask_scores: (N,) float32; equal to `scores` until masks are re-scored.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    coefficients: np.ndarray
    mask_scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def select_detections(
    predictions: Mapping[str, np.ndarray],
    config: PostprocessConfig,
    *,
    predict: Predict | None = None,
) -> Selection:
    """Select the detections of one image from the predictions of all priors.

    Args:
        predictions: `boxes` (P, 4), `class_scores` (P, C) without background, `coefficients`
            (P, K), all float32; only `class_scores` with `predict`.
        config: thresholds and limits.
        predict: returns boxes and coefficients of the priors that enter NMS.

    Returns:
        Detections with a score strictly above the threshold (with `all_classes`: all classes of
        priors with such a score); ties are ordered by class, rank within the class and prior.
    """
    class_scores = predictions["class_scores"]
    priors, class_ids = _candidates(class_scores, config)
    scores = class_scores[priors, class_ids]
    if config.nms == "cross_class":
        groups = [np.arange(len(priors))]
    else:
        groups = _group_by_class(class_ids)
    groups = [members[best_first(scores[members], config.top_k)] for members in groups]
    ranked = np.concatenate([np.zeros(0, np.int64), *groups])
    entering, rows = np.unique(priors[ranked], return_inverse=True)
    if predict is None:
        boxes, coefficients = (
            predictions[n].take(entering, axis=0) for n in ("boxes", "coefficients")
        )
    else:
        boxes, coefficients = predict(entering)
    nms = greedy_nms if config.nms == "greedy" else fast_nms
    kept = nms(boxes[rows], config.nms_iou_threshold, [len(members) for members in groups])
    kept = np.flatnonzero(kept)
    kept = kept[best_first(scores[ranked[kept]], config.max_detections)]
    survivors, rows = ranked[kept], rows[kept]
    return Selection(
        boxes=boxes[rows],
        scores=scores[survivors],
        class_ids=class_ids[survivors],
        coefficients=coefficients[rows],
        mask_scores=scores[survivors],
    )


def select_finished(predictions: Mapping[str, np.ndarray], config: PostprocessConfig) -> Selection:
    """Select detections from the output of a graph that includes NMS and re-scoring.

    Args:
        predictions: `boxes` (N, 4), `scores` (N,), `mask_scores` (N,), `class_ids` (N,) and
            `coefficients` (N, K), rows best first; unused rows score 0 or below.
        config: score threshold and number of detections; the rest was fixed at export.
    """
    chosen = finished_rows(predictions, config)
    return Selection(
        boxes=predictions["boxes"][chosen],
        scores=predictions["scores"][chosen],
        class_ids=predictions["class_ids"][chosen].astype(np.int64),
        coefficients=predictions["coefficients"][chosen],
        mask_scores=predictions["mask_scores"][chosen],
    )


def finished_rows(predictions: Mapping[str, np.ndarray], config: PostprocessConfig) -> np.ndarray:
    """Return the indices of the rows that `select_finished` chooses."""
    # Unused rows are excluded even at threshold 0, because scores must be strictly above it.
    return np.flatnonzero(predictions["scores"] > config.score_threshold)[: config.max_detections]


def _candidates(
    class_scores: np.ndarray, config: PostprocessConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return the prior-class pairs that enter NMS, both (n,) int64, in order of priors."""
    num_classes = class_scores.shape[1]
    pairs = np.flatnonzero(class_scores.ravel() > config.score_threshold)
    priors, class_ids = np.divmod(pairs, num_classes)
    if config.nms == "cross_class":
        priors = np.unique(priors)
        return priors, class_scores[priors].argmax(axis=1)
    if config.all_classes:
        priors = np.unique(priors)
        classes = np.arange(num_classes)
        return np.repeat(priors, num_classes), np.tile(classes, len(priors))
    return priors, class_ids


def _group_by_class(class_ids: np.ndarray) -> list[np.ndarray]:
    """Return the indices of each occurring class, ascending."""
    order = np.argsort(class_ids.astype(np.int16), kind="stable")  # 16 bits use radix sort
    counts = np.bincount(class_ids)
    counts = counts[counts > 0]
    spans = zip(counts.tolist(), np.cumsum(counts).tolist(), strict=True)
    return [order[end - count : end] for count, end in spans]


def best_first(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` highest scores, best first; ties keep their order."""
    if len(scores) <= 4 * count:
        return np.argsort(-scores, kind="stable")[:count]
    # Keep scores equal to the last one that fits, to preserve the order of ties.
    limit = np.partition(scores, len(scores) - count)[len(scores) - count]
    indices = np.flatnonzero(scores >= limit)
    return indices[np.argsort(-scores[indices], kind="stable")[:count]]


def fast_nms(
    boxes: np.ndarray, iou_threshold: float, sizes: Sequence[int] | None = None
) -> np.ndarray:
    """Apply Fast NMS (YOLACT section 3.3).

    A box is suppressed by any better one that it overlaps, even by one that is itself suppressed.
    A zero-area box has an IoU of 0/0 with its like: that is not `<=` the threshold, so it is
    suppressed, as in the reference.

    Args:
        boxes: (n, 4) float32 x1 y1 x2 y2, class after class, best first in each.
        iou_threshold: largest IoU with a better box of its class that a kept one may have.
        sizes: number of boxes of each class; None for one class.

    Returns:
        (n,) bool: which boxes are kept.
    """
    sizes = [len(boxes)] if sizes is None else sizes
    kept = np.ones(len(boxes), bool)
    if sum(size * (size - 1) // 2 for size in sizes) <= FEW_PAIRS * len(sizes):
        better, other = _pairs(sizes)
        corners = np.ascontiguousarray(boxes.T)
        overlaps = iou(corners.take(better, axis=1), corners.take(other, axis=1))
        kept[other[~(overlaps <= iou_threshold)]] = False
        return kept
    for members, best in _classes(boxes, kept, sizes):
        fits = self_iou(members) <= iou_threshold
        best[:] = (fits | np.tri(len(members), dtype=bool)).all(axis=0)
    return kept


def greedy_nms(
    boxes: np.ndarray, iou_threshold: float, sizes: Sequence[int] | None = None
) -> np.ndarray:
    """Apply standard NMS: from the best box on, each kept box suppresses those it overlaps.

    The reference adds one pixel to each side of the boxes; this is the usual definition. Arguments
    and result are those of `fast_nms`.
    """
    kept = np.ones(len(boxes), bool)
    for members, best in _classes(boxes, kept, [len(boxes)] if sizes is None else sizes):
        overlaps = self_iou(members) > iou_threshold  # False for 0/0
        for i in range(len(members)):
            if best[i]:
                best[i + 1 :] &= ~overlaps[i, i + 1 :]
    return kept


def _classes(
    boxes: np.ndarray, kept: np.ndarray, sizes: Sequence[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield views of the boxes of each class, and of their marks."""
    ends = np.cumsum(sizes, dtype=np.int64)[:-1]
    return zip(np.split(boxes, ends), np.split(kept, ends), strict=True)


def _pairs(sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of every box, repeated, and of each worse box of its class."""
    ends = np.repeat(np.cumsum(sizes, dtype=np.int64), sizes)
    number = np.arange(len(ends))
    worse = ends - number - 1
    better = np.repeat(number, worse)
    return better, np.arange(len(better)) + np.repeat(ends - np.cumsum(worse), worse)


def self_iou(boxes: np.ndarray) -> np.ndarray:
    """Compute the IoU of all pairs of (n, 4) boxes: (n, n), NaN for 0/0."""
    corners = np.ascontiguousarray(boxes.T)
    return iou(corners[:, :, None], corners[:, None])


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the IoU of boxes (4, ...) with others, broadcast; NaN for 0/0."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    widths, heights = np.maximum(high - low, 0)
    intersection = widths * heights
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = intersection / (areas[0] + areas[1] - intersection)
    return result
