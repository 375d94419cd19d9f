"""Losses over the steps, as CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path


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
        """The means since the last call, and `total`, their sum; then start anew."""
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
        if last_step and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= last_step]
        part = path.with_name(f"{path.name}.part")  # a full disk must not cost the old lines
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        os.replace(part, path)

    def write(self, values: Mapping[str, float | None]) -> None:
        """Append a line; what is None or not there stays empty."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            row = {n: v if n == "step" else f"{v:.6g}" for n, v in values.items() if v is not None}
            csv.DictWriter(file, self.columns).writerow(row)
