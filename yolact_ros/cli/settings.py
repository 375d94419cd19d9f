"""Define command-line flags from configurations, and argument types that several verbs use."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from yolact_ros.config import describe, docstring_entries

T = TypeVar("T")


def documented(group: Any, declare: Callable[..., Any]) -> Callable[..., Any]:
    """Return `add_argument` of a group; `Options` in the docstring of `declare` is the help."""
    docs = docstring_entries(declare.__doc__, "Options")

    def add(*names: str, **how: Any) -> Any:
        return group.add_argument(*names, **{"help": docs.get(names[-1]), **how})

    return add


def example_of(declare: Callable[..., Any]) -> str:
    """Return the line under `Example` in a docstring."""
    return (declare.__doc__ or "").partition("Example:\n")[2].partition("\n")[0].strip()


def add_settings(group: Any, defaults: Any) -> None:
    """Add one flag for each field of a dataclass whose fields are created with `setting`.

    A flag that is not given is None, which differs from giving the default value.
    """
    for field in dataclasses.fields(defaults):
        default = getattr(defaults, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        shown = ("no", "yes")[default] if isinstance(default, bool) else default
        text = describe(field, f"default: {shown}", choices=False)
        if text[1].islower():  # not an abbreviation
            text = text[0].lower() + text[1:]
        if isinstance(default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
            continue
        letter = "N" if isinstance(default, int) else "X"
        group.add_argument(
            flag,
            type=type(default),
            choices=field.metadata.get("choices"),
            metavar=None if "choices" in field.metadata else letter,
            help=text,
        )


def read_settings(arguments: argparse.Namespace, defaults: T) -> T:
    """Return `defaults` with the values of the flags that were given.

    Raises:
        ConfigError: a value is out of range.
    """
    names = [field.name for field in dataclasses.fields(defaults)]  # type: ignore[arg-type]
    given = {name: getattr(arguments, name) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(defaults, **changes)  # type: ignore[type-var]


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
