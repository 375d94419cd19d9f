"""Curves of training runs, from the logs that a run writes into its folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.charts import finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES, VALIDATION = "losses.csv", "validation.csv"

# Columns that are no losses.
STEP, RATE, SPEED, TOTAL = "step", "learning_rate", "images_per_second", "total"
AP = {"mask_ap": "mask AP", "mask_ap50": "mask AP50", "box_ap": "box AP"}

PANEL_INCHES = (4.2, 2.8)
COLUMNS = 3


@dataclass(frozen=True)
class Run:
    """The logs of one training.

    Attributes:
        name: of its folder.
        training: column to (N,) float64, of `losses.csv`.
        validation: the same of `validation.csv`; empty if nothing was validated. A field that is
            empty there is NaN.
    """

    name: str
    training: Mapping[str, np.ndarray]
    validation: Mapping[str, np.ndarray]


def read_run(folder: Path) -> Run:
    """Read the logs of a run, which may still be going on.

    Raises:
        DatasetError: the folder has no log, or one that is none of `yolact train`.
    """
    training = _read_log(folder / LOSSES)
    if not training or not len(training[STEP]):
        raise DatasetError(
            f"{folder / LOSSES} has no line yet; expected the folder of a `yolact train` that has "
            "done some steps."
        )
    path = folder / VALIDATION
    validation = _read_log(path) if path.is_file() else {}
    return Run(folder.resolve().name, training, validation)


def draw_runs(runs: Sequence[Run]) -> Figure:
    """One panel for the sum and for each part of the loss, for AP, learning rate and speed.

    Training is a thin line, validation a line with dots; each run has its colour.

    Args:
        runs: at least one.

    Raises:
        BackendError: matplotlib is not installed.
    """
    parts = list(dict.fromkeys(name for run in runs for name in _loss_names(run)))
    panels = [TOTAL, *parts]
    if any(_known(run.validation, name) for run in runs for name in AP):
        panels.append("AP")
    panels += [RATE, SPEED]
    rows = -(-len(panels) // COLUMNS)
    figure = new_figure(COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1])
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        for number, run in enumerate(runs):
            _draw_panel(axes, panel, run, colour=f"C{number}", named=len(runs) > 1)
        axes.set(title=panel.replace("_", " "), xlabel="step", ylim=(0, _top(panel, runs)))
        finish(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    return figure


def _draw_panel(axes: Any, panel: str, run: Run, *, colour: str, named: bool) -> None:
    label = f"{run.name} " if named else ""
    if panel == "AP":
        styles = zip(AP.items(), ("-", "--", ":"), strict=True)
        for (name, title), style in styles:
            if _known(run.validation, name):
                values = 100 * run.validation[name]
                axes.plot(
                    run.validation[STEP], values, style, marker=".", color=colour,
                    label=f"{label}{title}",
                )  # fmt: skip
        return
    if panel in run.training:
        own = (run.name if named else None) if panel in (RATE, SPEED) else f"{label}training"
        axes.plot(
            run.training[STEP], run.training[panel], lw=0.9, alpha=0.8, color=colour,
            label=own,
        )  # fmt: skip
    if _known(run.validation, panel):
        axes.plot(
            run.validation[STEP], run.validation[panel], "-", marker=".", lw=1.8, color=colour,
            label=f"{label}validation",
        )  # fmt: skip


def _top(panel: str, runs: Sequence[Run]) -> float | None:
    """Where a panel of losses ends, so that its first steps do not press down all others."""
    if panel in ("AP", RATE, SPEED):
        return None
    logs = [log for run in runs for log in (run.training, run.validation) if _known(log, panel)]
    finite = [log[panel][np.isfinite(log[panel])] for log in logs]  # a run may have diverged
    top = max((float(np.quantile(values, 0.95)) for values in finite), default=0.0)
    return 1.2 * top if 0 < top < 1e300 else None


def _loss_names(run: Run) -> list[str]:
    return [name for name in run.training if name not in (STEP, RATE, SPEED, TOTAL)]


def _known(log: Mapping[str, np.ndarray], name: str) -> bool:
    return name in log and bool(np.isfinite(log[name]).any())


def _read_log(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:  # ValueError: no UTF-8
        raise DatasetError(
            f"{path} cannot be read: {error}. Expected the folder of a `yolact train`."
        ) from error
    if not rows:
        return {}
    if STEP not in rows[0]:
        raise DatasetError(f"{path} has no column {STEP!r}; it is no log of `yolact train`.")
    try:
        # The last line of a run that goes on may be half written.
        rows = [row for row in rows if None not in row.values()]
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    except (IndexError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} has a field that is no number: {error}.") from error
