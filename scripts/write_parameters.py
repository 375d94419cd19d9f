"""Write the parameter tables of docs/parameters.md and config/yolact_node.yaml from `Settings`.

Run in the repository's folder:

    python3 scripts/write_parameters.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from yolact_ros.config import describe
from yolact_ros.ros.parameters.settings import parameter_fields, shown, tables

BEGIN = "<!-- parameters: python3 scripts/write_parameters.py -->\n"
END = "<!-- end of parameters -->\n"
WIDTH = 96


def markdown() -> str:
    """Return the table for the documentation."""
    lines = ["| parameter | default | meaning |", "|---|---|---|"]
    for _, defaults in tables():
        for field in parameter_fields(defaults):
            value = shown(getattr(defaults, field.name))
            lines.append(f"| `{field.name}` | `{value}` | {describe(field)} |")
    return "\n".join(lines) + "\n"


def parameter_file() -> str:
    """Return the YAML file with all defaults."""
    lines = [
        "# All parameters of the node with their defaults, written by",
        "#   python3 scripts/write_parameters.py",
        "# Copy this file, keep what you change, and start the node with",
        "#   ros2 launch yolact_ros yolact.launch.py params_file:=my_node.yaml",
        "/**:",
        "  ros__parameters:",
    ]
    for title, defaults in tables():
        lines += ["", *_comment(title)]
        for field in parameter_fields(defaults):
            lines += _comment(describe(field))
            lines.append(f"    {field.name}: {shown(getattr(defaults, field.name))}")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """Return a page with the current table between its two markers."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + markdown() + END + rest.split(END)[1]


def _comment(text: str) -> list[str]:
    return [f"    # {line}" for line in textwrap.wrap(text, WIDTH - 6)]


def main() -> None:
    """Write both files; run in the repository's folder."""
    page = Path("docs/parameters.md")
    page.write_text(with_table(page.read_text()))
    Path("config/yolact_node.yaml").write_text(parameter_file())


if __name__ == "__main__":
    main()
