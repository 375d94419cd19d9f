"""Describe the parameters of ROS programs."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from yolact_ros.config import with_notes
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
            lines.append(f"  {field.name} (default: {plain(getattr(defaults, field.name))!r})")
            indent = " " * 6
            lines += textwrap.wrap(
                meaning(field), 92, initial_indent=indent, subsequent_indent=indent
            )
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """Return a parameter's value as YAML has it."""
    return list(value) if isinstance(value, tuple) else value


def meaning(field: dataclasses.Field[Any]) -> str:
    """Return the description of a parameter, with its range or the choices not yet explained."""
    text: str = field.metadata["doc"]
    choices = field.metadata.get("choices", ())
    if not all(re.search(rf"\b{choice}\b", text) for choice in choices):
        return with_notes(text, *choices)
    if "range" in field.metadata:
        low, high = field.metadata["range"]
        return with_notes(text, f"{low:g} to {high:,g}")
    return text
