"""Command-line flags made from configuration dataclasses: one table for defaults and words."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def add_settings(parser: argparse.ArgumentParser, defaults: Any, *, title: str) -> None:
    """Declare one flag for each field of a dataclass whose fields are made with `setting`.

    Args:
        parser: gets the flags as a group.
        defaults: an instance; its values are the defaults.
        title: of the group.
    """
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(defaults):
        default = getattr(defaults, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        text = field.metadata["doc"]
        if isinstance(default, bool):
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=default,
                help=f"{text} (default: {'yes' if default else 'no'})",
            )
            continue
        if "range" in field.metadata:
            text += ", {:g} to {:g}".format(*field.metadata["range"])
        group.add_argument(
            flag,
            type=type(default),
            default=default,
            choices=field.metadata.get("choices"),
            metavar=None if "choices" in field.metadata else "X",
            help=f"{text} (default: %(default)s)",
        )


def read_settings(arguments: argparse.Namespace, defaults: T) -> T:
    """The dataclass with the values of the flags that `add_settings` declared.

    Raises:
        ConfigError: a value lies outside its range.
    """
    names = [field.name for field in dataclasses.fields(defaults)]  # type: ignore[arg-type]
    values = {name: getattr(arguments, name) for name in names}
    return dataclasses.replace(defaults, **values)  # type: ignore[type-var]


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what runs the model."""
    parser.add_argument(
        "--backend",
        choices=("auto", "onnxruntime", "torch"),
        default="auto",
        help="library that runs the network (default: by the kind of model)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads of the backend (default: it decides)",
    )
