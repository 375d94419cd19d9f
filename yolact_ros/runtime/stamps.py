"""Convert stamps (`builtin_interfaces/Time`) of ROS, or of bags read without ROS, to numbers."""

from __future__ import annotations

from typing import Any


def nanoseconds(stamp: Any) -> int:
    """Return a stamp in nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def seconds_of(stamp: Any) -> float | None:
    """Return a stamp in seconds; None if it is zero, as from cameras that do not stamp images."""
    return float(stamp.sec + stamp.nanosec * 1e-9) or None
