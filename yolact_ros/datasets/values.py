"""Parse values that annotation files state in several forms: numbers, flags and names."""

from __future__ import annotations

import re
from typing import Any

WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,18}(\.0*)?\s*")
TRUE = {"1", "true", "yes"}
FALSE = {"0", "false", "no", "none", ""}


def whole_number(value: Any) -> int | None:
    """Parse an id or a count: 7, 7.0, "7" and "7.0" are 7; return None for anything else."""
    if isinstance(value, str) and WHOLE_NUMBER.fullmatch(value):
        value = int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**62:
        return None
    return value


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return (height, width) if both can be read as positive numbers."""
    size = whole_number(height) or 0, whole_number(width) or 0
    return size if min(size) > 0 else None


def flag(value: Any) -> bool | None:
    """Parse a boolean, even as text; return None for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        value = 1 if word in TRUE else 0 if word in FALSE else whole_number(word)
    return bool(value) if value in (0, 1) else None


def clean_name(name: Any) -> str:
    """Return a class name without surrounding spaces and with single ones inside."""
    return " ".join(str(name).split())
