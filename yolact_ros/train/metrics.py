"""Log losses and AP over the steps as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.errors import YolactError


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    # Raised by int() and the csv library for lines that this package did not write.
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise YolactError(
            f"The log {path} is damaged ({error}); move it away to continue without it."
        ) from error


class MeanLosses:
    """Accumulates losses by name and returns their means."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weight = 0.0

    def add(self, values: Mapping[str, float], *, weight: float = 1.0) -> None:
        """Add the losses of a step or a batch."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value
        self._weight += weight

    def merge(self, other: MeanLosses) -> None:
        """Add the losses that another object has accumulated."""
        for name, total in other._sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + total
        self._weight += other._weight

    @property
    def empty(self) -> bool:
        """Return whether no losses were added since the last call of `take`."""
        return not self._weight

    def take(self) -> dict[str, float]:
        """Return the means since the last call and their sum, `total`; then start from zero."""
        means = {name: total / self._weight for name, total in self._sums.items()}
        self._sums, self._weight = {}, 0.0
        return {**means, "total": sum(means.values())}


class RunLog:
    """Writes a CSV file with one line per report, and the same curves for TensorBoard.

    The curves are in a folder `tensorboard` beside the file; without TensorBoard, only the file is
    written.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *, last_step: int) -> None:
        """Open the log of a run that has done `last_step` steps; 0 starts a new file.

        Lines of later steps, which will be repeated, are removed.
        """
        self.path = path
        self.columns = columns
        self._last_step = last_step
        self._curves: Any = None
        kept: list[dict[str, str]] = []
        part = path.with_name(f"{path.name}.part")
        if last_step and path.is_file():
            with _reading(path), path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= last_step]
        # The old log stays until the new one is complete: the disk may be full.
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        part.replace(path)

    def write(self, values: Mapping[str, float | None]) -> None:
        """Append a line; missing values and None stay empty."""
        known = {name: value for name, value in values.items() if value is not None}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            row = {n: v if n == "step" else f"{v:.6g}" for n, v in known.items()}
            csv.DictWriter(file, self.columns).writerow(row)
        step = int(known.pop("step"))
        self._curves = self._curves or self._open_curves()
        for name, value in known.items():
            self._curves.add_scalar(name, value, step)

    def show(
        self,
        step: int,
        curves: Mapping[str, tuple[np.ndarray, int]],
        pictures: Mapping[str, np.ndarray],
    ) -> None:
        """Write curves of a `training_ap.TrainingScore`, and images, for TensorBoard."""
        self._curves = self._curves or self._open_curves()
        for name, (precision, instances) in curves.items():
            # Counts follow from precision and recall; the recall falls as the threshold rises.
            precision, recall = precision[::-1], np.linspace(1, 0, len(precision))
            found = recall * instances * (precision > 0)
            wrong = found / np.maximum(precision, 1e-9) - found
            self._curves.add_pr_curve_raw(
                f"masks at IoU 0.50/{name}",
                true_positive_counts=found,
                false_positive_counts=wrong,
                true_negative_counts=np.zeros_like(found),
                false_negative_counts=instances - found,
                precision=precision,
                recall=recall,
                global_step=step,
                num_thresholds=len(precision),
            )
        for name, picture in pictures.items():
            # TensorBoard takes RGB.
            self._curves.add_image(
                f"detections/{name}", picture[..., ::-1], step, dataformats="HWC"
            )

    def close(self) -> None:
        """Write buffered curves."""
        if self._curves is not None:
            self._curves.close()
            self._curves = None

    def _open_curves(self) -> Any:
        try:
            with warnings.catch_warnings():  # about its own imports
                warnings.simplefilter("ignore")
                from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return _NoCurves()
        folder = self.path.parent / "tensorboard" / self.path.stem
        return SummaryWriter(folder, purge_step=self._last_step + 1)


class _NoCurves:
    """Replaces TensorBoard's writer if TensorBoard is not installed."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None
