"""Draw charts as PNG files by Matplotlib, without a display."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
