"""Losses over the steps, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from yolact_ros.errors import YolactError


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    # What int() and the csv library raise for a line that this package did not write.
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise YolactError(
            f"The log {path} is damaged ({error}); move it away to go on without its lines."
        ) from error


class MeanLosses:
    """Collects losses by name and gives their means."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weight = 0.0

    def add(self, values: Mapping[str, float], *, weight: float = 1.0) -> None:
        """Take in the losses of a step or a batch."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value
        self._weight += weight

    def merge(self, other: MeanLosses) -> None:
        """Take in what another one has collected."""
        for name, total in other._sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + total
        self._weight += other._weight

    @property
    def empty(self) -> bool:
        """Whether nothing was collected since the last call of `take`."""
        return not self._weight

    def take(self) -> dict[str, float]:
        """The means since the last call, and `total`, their sum; then start again from zero."""
        means = {name: total / self._weight for name, total in self._sums.items()}
        self._sums, self._weight = {}, 0.0
        return {**means, "total": sum(means.values())}


class CsvLog:
    """A CSV file with one line for each report; lines of undone steps are cut off."""

    def __init__(self, path: Path, columns: tuple[str, ...], *, last_step: int) -> None:
        """Open the log of a run that has done `last_step` steps; 0 starts a new file."""
        self.path = path
        self.columns = columns
        kept: list[dict[str, str]] = []
        part = path.with_name(f"{path.name}.part")
        if last_step and path.is_file():
            with _reading(path), path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= last_step]
        # The old log stays until the new one is whole: the disk may be full.
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        part.replace(path)

    def write(self, values: Mapping[str, float | None]) -> None:
        """Append a line; what is None or not there stays empty."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            row = {n: v if n == "step" else f"{v:.6g}" for n, v in values.items() if v is not None}
            csv.DictWriter(file, self.columns).writerow(row)
