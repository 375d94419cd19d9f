"""Format tables and numbers for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Align the cells of a table: those of the first column left, all others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def percent(value: float | None, digits: int = 2) -> str:
    """Format a fraction in percent, without the sign; an unknown one is a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def format_machine(machine: Mapping[str, str]) -> str:
    """Format the machine on one line."""
    return ", ".join(f"{key} {value}" for key, value in machine.items())
