"""Define the types of values that several verbs accept as arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Keyword arguments of `add_argument` for paths.
FILE: dict[str, Any] = {"type": Path, "metavar": "FILE"}
FOLDER: dict[str, Any] = {"type": Path, "metavar": "FOLDER"}
JSON: dict[str, Any] = {"type": Path, "metavar": "JSON"}
FLAG: dict[str, Any] = {"action": "store_true"}


def number(low: float, high: float, default: float | None = None) -> dict[str, Any]:
    """Return keyword arguments of `add_argument` for a number; an integer if `low` is one."""
    parse, letter = _parser(low, high), "N" if isinstance(low, int) else "X"
    return {"type": parse, "default": default, "metavar": letter}


def numbers(low: int, high: int, default: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Return keyword arguments of `add_argument` for a list of distinct integers."""
    parse = _parser(low, high)

    def parse_list(text: str) -> tuple[int, ...]:
        return tuple(dict.fromkeys(map(parse, text.split(","))))

    return {"type": parse_list, "default": default, "metavar": "N,N,..."}


def _parser(low: float, high: float) -> Callable[[str], Any]:
    kind = type(low)

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:  # NaN is not in a range
            name = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{text[:40]!r} is not {name} from {low:.10g} to {high:.10g}"
            )
        return value

    return parse


def distinct_names(text: str) -> tuple[str, ...]:
    """Split A,B,C into names.

    Raises:
        ArgumentTypeError: a name is empty or repeated.
    """
    names = tuple(" ".join(name.split()) for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"{text!r} has an empty or repeated name; expected distinct names, e.g. bolt,nut"
        )
    return names
