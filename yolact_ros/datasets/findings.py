"""Collect findings about a data set: what was found, how severe it is, how often, and where.

Import, check and training collect the same findings and print them in the same format.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

ERROR = "error"  # something is lost or wrong in training
WARNING = "warning"  # may be intended
NOTE = "note"  # read as intended, but not as an ordinary object
SEVERITIES = (ERROR, WARNING, NOTE)
EXAMPLES = 3
WIDEST = 70  # length of a kind up to which the counts are aligned


@dataclass
class Findings:
    """Holds findings by severity and kind, in the order in which they were found.

    Attributes:
        places: the first `limit` places by severity and kind.
        counts: number of findings by severity and kind.
        limit: maximum number of kept places; None keeps all.
    """

    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    limit: int | None = None

    def add(self, severity: str, kind: str, place: str) -> None:
        """Count a finding and record where it is."""
        places = self.places.setdefault((severity, kind), [])
        self.counts[(severity, kind)] += 1
        if self.limit is None or len(places) < self.limit:
            places.append(place)

    def extend(self, other: Findings) -> None:
        """Add all findings of `other`."""
        for (severity, kind), places in other.places.items():
            for place in places:
                self.add(severity, kind, place)
            self.counts[(severity, kind)] += other.counts[(severity, kind)] - len(places)

    def count(self, severity: str) -> int:
        """Return the number of findings of one severity."""
        return sum(count for (s, _), count in self.counts.items() if s == severity)

    def ordered(self) -> list[tuple[str, str, list[str]]]:
        """Return severity, kind and places; errors first."""
        rows = [(severity, kind, places) for (severity, kind), places in self.places.items()]
        return sorted(rows, key=lambda row: SEVERITIES.index(row[0]))

    def to_mapping(self) -> list[dict[str, Any]]:
        """Return all findings as JSON values."""
        return [
            {
                "severity": severity,
                "kind": kind,
                "count": self.counts[(severity, kind)],
                "places": places,
            }
            for severity, kind, places in self.ordered()
        ]


def format_findings(findings: Findings) -> str:
    """Format one line per kind: severity, kind, count, and the first locations."""
    rows = findings.ordered()
    width = min(max((len(kind) for _, kind, _ in rows), default=0), WIDEST)
    lines = []
    for severity, kind, places in rows:
        count = findings.counts[(severity, kind)]
        first = ", ".join(places[:EXAMPLES]) + (", ..." if count > EXAMPLES else "")
        line = f"  {severity:<7}  {kind:<{width}}  {count:>6}  {first}"
        lines.append(line.encode("utf-8", "backslashreplace").decode())
    return "\n".join(lines) or "  no findings"
