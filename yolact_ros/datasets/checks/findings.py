"""Faults of a data set, by how bad they are, what they are and where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolact_ros.datasets.checks.duplicates import ImageHash

ERROR = "error"  # something is lost or wrong in training
WARNING = "warning"  # something that one may well want


@dataclass
class Findings:
    """Places by severity and kind of fault, in the order they were found."""

    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, severity: str, kind: str, place: str) -> None:
        """Note a fault."""
        self.places.setdefault((severity, kind), []).append(place)

    def count(self, severity: str) -> int:
        """How many faults there are of `ERROR` or `WARNING`."""
        return sum(len(places) for (s, _), places in self.places.items() if s == severity)

    def ordered(self) -> list[tuple[str, str, list[str]]]:
        """Severity, kind and places; errors first."""
        rows = [(severity, kind, places) for (severity, kind), places in self.places.items()]
        return sorted(rows, key=lambda row: row[0] != ERROR)

    def to_mapping(self) -> list[dict[str, Any]]:
        """All of it, as JSON can hold it."""
        return [
            {"severity": severity, "kind": kind, "count": len(places), "places": places}
            for severity, kind, places in self.ordered()
        ]


@dataclass
class SplitReport:
    """What was found in one annotation file and its images.

    Attributes:
        annotations: the file.
        folder: of the images.
        images: how many it lists.
        listed: their file names.
        instances: usable ones by class name, crowds left out; a class without any has 0.
        images_with: how many images show each class.
        empty_images: how many images have no instance.
        findings: faults.
        files: names of the images that could be read, in the order of `hashes`.
        hashes: of these images.
    """

    annotations: Path
    folder: Path
    images: int = 0
    listed: set[str] = field(default_factory=set)
    instances: Counter[str] = field(default_factory=Counter)
    images_with: Counter[str] = field(default_factory=Counter)
    empty_images: int = 0
    findings: Findings = field(default_factory=Findings)
    files: list[str] = field(default_factory=list)
    hashes: list[ImageHash] = field(default_factory=list)
