"""Describe the parameters of ROS programs."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from yolact_ros.config import describe
from yolact_ros.ros.parameters.settings import (
    READ_BY_CONFIGURE,
    Settings,
    StartSettings,
    parameter_fields,
)


def tables() -> list[tuple[str, Any]]:
    """Return a title for each group of settings, which says when it is read, and its defaults."""
    found: list[tuple[str, Any]] = [("Start (read when the node starts)", StartSettings())]
    for field in dataclasses.fields(Settings):
        configured = field.name in READ_BY_CONFIGURE
        when = "by the transition configure" if configured else "before every image"
        title = f"{field.name.capitalize()} (read {when})"
        found.append((title, getattr(Settings(), field.name)))
    return found


def parameters_usage(program: str, summary: str, settings: Sequence[Any]) -> str:
    """Return the `--help` text of a ROS program.

    Args:
        program: name of the executable.
        summary: one sentence that describes the program.
        settings: dataclasses whose fields are the program's parameters.
    """
    lines = [
        f"usage: {program} [--ros-args -p PARAMETER:=VALUE ... -r FROM:=TO ...]",
        "",
        summary,
        "",
        "parameters:",
    ]
    for defaults in settings:
        for field in parameter_fields(defaults):
            lines.append(f"  {field.name} (default: {shown(getattr(defaults, field.name))})")
            indent = " " * 6
            lines += textwrap.wrap(
                describe(field), 92, initial_indent=indent, subsequent_indent=indent
            )
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Return a parameter's value as YAML has it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
