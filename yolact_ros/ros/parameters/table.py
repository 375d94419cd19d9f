"""Write the parameter tables of docs/parameters.md and config/yolact_node.yaml from `Settings`.

Run in the repository's folder:

    python3 -m yolact_ros.ros.parameters.table
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolact_ros.config import with_notes
from yolact_ros.ros.parameters.settings import (
    READ_BY_CONFIGURE,
    Settings,
    StartSettings,
    parameter_fields,
)

BEGIN = "<!-- parameters: python3 -m yolact_ros.ros.parameters.table -->\n"
END = "<!-- end of parameters -->\n"
WIDTH = 96


def tables() -> list[tuple[str, Any]]:
    """Return a title for each group of settings, which says when it is read, and its defaults."""
    found: list[tuple[str, Any]] = [("Start (read when the node starts)", StartSettings())]
    for field in dataclasses.fields(Settings):
        configured = field.name in READ_BY_CONFIGURE
        when = "by the transition configure" if configured else "before every image"
        title = f"{field.name.capitalize()} (read {when})"
        found.append((title, getattr(Settings(), field.name)))
    return found


def markdown() -> str:
    """Return the table for the documentation."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for _, defaults in tables():
        for field in parameter_fields(defaults):
            value = json.dumps(_plain(getattr(defaults, field.name)))
            lines.append(f"| `{field.name}` | `{value}` | {_meaning(field)} |")
    return "\n".join(lines) + "\n"


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
            lines.append(f"  {field.name} (default: {_plain(getattr(defaults, field.name))!r})")
            indent = " " * 6
            lines += textwrap.wrap(
                _meaning(field), 92, initial_indent=indent, subsequent_indent=indent
            )
    return "\n".join(lines)


def parameter_file() -> str:
    """Return the YAML file with all defaults."""
    lines = [
        "# All parameters of the node with their defaults, written by",
        "#   python3 -m yolact_ros.ros.parameters.table",
        "# Copy this file, keep what you change, and start the node with",
        "#   ros2 launch yolact_ros yolact.launch.py params_file:=my_node.yaml",
        "/**:",
        "  ros__parameters:",
    ]
    for title, defaults in tables():
        lines += ["", *_comment(title)]
        for field in parameter_fields(defaults):
            lines += _comment(_meaning(field))
            lines.append(f"    {field.name}: {json.dumps(_plain(getattr(defaults, field.name)))}")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """Return a page with the current table between its two markers."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + markdown() + END + rest.split(END)[1]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _meaning(field: dataclasses.Field[Any]) -> str:
    """Return the description of a parameter, with its range or the choices not yet explained."""
    text: str = field.metadata["doc"]
    choices = field.metadata.get("choices", ())
    if not all(re.search(rf"\b{choice}\b", text) for choice in choices):
        return with_notes(text, *choices)
    if "range" in field.metadata:
        low, high = field.metadata["range"]
        return with_notes(text, f"{low:g} to {high:,g}")
    return text


def _comment(text: str) -> list[str]:
    return [f"    # {line}" for line in textwrap.wrap(text, WIDTH - 6)]


def main() -> None:
    """Write both files; run in the repository's folder."""
    page = Path("docs/parameters.md")
    page.write_text(with_table(page.read_text()))
    Path("config/yolact_node.yaml").write_text(parameter_file())


if __name__ == "__main__":
    main()
