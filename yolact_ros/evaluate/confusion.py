"""Compute the confusion matrix of detections matched with true instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from yolact_ros.evaluate.charts import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BACKGROUND = "background"

# With more classes, the cells are too small for numbers.
MAX_NUMBERED = 30
CELL_INCHES = 0.42


def match_instances(
    iou: np.ndarray, scores: np.ndarray, *, threshold: float, same: np.ndarray | None = None
) -> np.ndarray:
    """Match detections with true instances, those of their own class first.

    In descending order of score, each detection takes the true instance with the highest IoU among
    those of its class that are not taken yet; then the rest of the detections take from the rest
    of the instances. A detection that is left and lies on a taken instance of another class is
    matched with that one as well: its mask is right, and its class is not.

    Args:
        iou: (D, T) IoU of each detection with each true instance, in [0, 1].
        scores: (D,) scores of the detections.
        threshold: minimum IoU of a match.
        same: (D, T) bool, whether the two classes are equal; None to match regardless of them.

    Returns:
        (D,) int64: index of the true instance of each detection, or -1.
    """
    matches = np.full(len(scores), -1, np.int64)
    if not iou.shape[1]:
        return matches
    free = np.ones(iou.shape[1], bool)
    rounds = [free] if same is None else [same, free, ~same]
    for number, allowed in enumerate(rounds):
        for i in np.argsort(-scores, kind="stable"):
            if matches[i] >= 0:
                continue
            suitable = allowed if allowed.ndim == 1 else allowed[i]
            candidates = np.where(suitable & (free | (number == 2)), iou[i], -1.0)
            best = int(candidates.argmax())
            if candidates[best] >= threshold:
                matches[i] = best
                free[best] = False
    return matches


def count_confusions(
    true_classes: np.ndarray, found_classes: np.ndarray, *, matches: np.ndarray, num_classes: int
) -> np.ndarray:
    """Count the pairs of true class and detected class in an image.

    Args:
        true_classes: (T,) int64, below `num_classes`.
        found_classes: (D,) int64, classes of the detections.
        matches: (D,) int64, index of the true instance of each detection, or -1.
        num_classes: C.

    Returns:
        (C + 1, C + 1) int64, true class by detected class. The last row counts detections on the
        background, the last column missed instances.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    missed = np.ones(len(true_classes), bool)
    missed[matches[matches >= 0]] = False
    # A match of -1 selects the last entry, which is the background.
    rows = np.append(true_classes, num_classes).astype(np.int64)[matches]
    np.add.at(counts, (rows, found_classes), 1)
    np.add.at(counts[:, num_classes], true_classes[missed], 1)
    return counts


def draw_confusion(counts: np.ndarray, names: Sequence[str], *, title: str) -> Figure:
    """Draw the counts, shaded by their fraction of the row.

    Args:
        counts: (C + 1, C + 1), see `count_confusions`.
        names: names of the C classes.
        title: title of the picture.

    Raises:
        BackendError: matplotlib is not installed.
    """
    titles = [*names, BACKGROUND]
    side = len(titles)
    numbered = side <= MAX_NUMBERED + 1
    inches = side * (CELL_INCHES if numbered else CELL_INCHES / 2)
    figure = new_figure(inches + 3.0, inches + 2.2)
    axes = figure.add_subplot()
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(side), titles, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(side), titles)
    axes.tick_params(labelsize=8 if numbered else 5, length=2)
    axes.set(xlabel="found", ylabel="true", title=title)
    # Separate the background, because it is not a class.
    axes.axhline(side - 1.5, color="0.4", lw=0.8)
    axes.axvline(side - 1.5, color="0.4", lw=0.8)
    if numbered:
        for row, column in np.argwhere(counts):
            ink = "white" if fractions[row, column] > 0.55 else "black"
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=7,
                color=ink,
            )  # fmt: skip
    figure.colorbar(picture, ax=axes, shrink=0.7, label="fraction of the row")
    return figure
