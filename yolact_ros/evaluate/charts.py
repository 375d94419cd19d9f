"""Draw charts, such as precision-recall curves, with Matplotlib and without a display."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolact_ros.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure, in inches, whose parts do not overlap."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and create its folder if necessary.

    Raises:
        DatasetError: the file cannot be written.
    """
    content = io.BytesIO()
    with warnings.catch_warnings():
        # Characters missing from the font are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(content, format="png")
    write_file(path, content.getvalue())


def finish(axes: Any, *, legend: bool = True) -> None:
    """Give axes a light grid and, if anything has a label, a legend."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)


# Title of a panel, and which of COCOeval's ten IoU thresholds, 0.50:0.95, it averages over.
PANELS = (
    ("IoU 0.50", slice(0, 1)),
    ("IoU 0.75", slice(5, 6)),
    ("mean of IoU 0.50:0.95", slice(0, 10)),
)
RECALL = np.linspace(0, 1, 101)
MAX_NAMED = 20  # classes that get their own colour and name


def mean_precision(precision: np.ndarray, thresholds: slice) -> np.ndarray:
    """Average precision over IoU thresholds.

    Args:
        precision: (10, 101, C), see `coco_tables.Scores`.
        thresholds: selection of the ten thresholds.

    Returns:
        (101, C); NaN for a class without a true instance.
    """
    curves = precision[thresholds].mean(axis=0)
    return np.where(curves < 0, np.nan, curves)


def draw_precision_recall(
    precision: Mapping[str, np.ndarray], names: Sequence[str], *, title: str
) -> Figure:
    """Draw one row for masks and one for boxes: thin lines for classes, a thick one for the mean.

    Args:
        precision: (10, 101, C) by title of the row, see `coco_tables.Scores`.
        names: names of the C classes.
        title: title of the picture.

    Raises:
        BackendError: matplotlib is not installed.
    """
    figure = new_figure(11.5, 3.5 * len(precision))
    figure.suptitle(title)
    grid = figure.subplots(len(precision), len(PANELS), squeeze=False)
    for row, (kind, values) in zip(grid, precision.items(), strict=True):
        for axes, (panel, thresholds) in zip(row, PANELS, strict=True):
            _draw_panel(axes, mean_precision(values, thresholds), names)
            axes.set(title=f"{kind}, {panel}", xlabel="recall", ylabel="precision")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _draw_panel(axes: Any, curves: np.ndarray, names: Sequence[str]) -> None:
    known = np.flatnonzero(~np.isnan(curves).any(axis=0))
    named = len(known) <= MAX_NAMED
    for number, c in enumerate(known.tolist()):
        colour = f"C{number % 10}" if named else "0.5"
        axes.plot(
            RECALL, curves[:, c], lw=1, alpha=0.55 if named else 0.3, color=colour,
            ls="-" if number < 10 or not named else "--", label=names[c] if named else None,
        )  # fmt: skip
    if len(known):
        mean = curves[:, known].mean(axis=1)
        axes.plot(RECALL, mean, lw=2.4, color="black", label="mean")
        axes.text(
            0.03, 0.05, f"AP {100 * mean.mean():.1f}", transform=axes.transAxes, weight="bold"
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    finish(axes, legend=False)
