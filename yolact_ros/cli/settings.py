"""Define command-line flags from the configuration dataclasses, which hold defaults and help."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

from yolact_ros.config import with_notes

T = TypeVar("T")


def add_settings(group: Any, defaults: Any) -> None:
    """Add one flag for each field of a dataclass whose fields are created with `setting`.

    A flag that is not given is None, which differs from giving the default value.
    """
    for field in dataclasses.fields(defaults):
        default = getattr(defaults, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        text = field.metadata["doc"]
        if text[1].islower():  # not an abbreviation
            text = text[0].lower() + text[1:]
        if isinstance(default, bool):
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                help=with_notes(text, f"default: {'yes' if default else 'no'}"),
            )
            continue
        notes = [f"default: {default}"]
        if "range" in field.metadata:
            notes.insert(0, "{:g} to {:g}".format(*field.metadata["range"]))
        group.add_argument(
            flag,
            type=type(default),
            choices=field.metadata.get("choices"),
            metavar=None if "choices" in field.metadata else "X",
            help=with_notes(text, *notes),
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
