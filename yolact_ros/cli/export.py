"""`yolact export`: export a checkpoint to a bundle, which does not require torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yolact_ros.cli.settings import FLAG, add_settings, documented, read_settings
from yolact_ros.cli.table import format_table

if TYPE_CHECKING:
    from yolact_ros.export.to_bundle import OutputError

# Number of inputs on which each graph is compared with torch.
QUICK_IMAGES, THOROUGH_IMAGES = 2, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments.

    Example:
        out/parts/best.pth -o models/parts --half-weights

    Options:
        checkpoint: checkpoint (also an official one), shipped model or bundle.
        --output: folder to write.
        --compare: compare with torch on more images, and print the maximum difference of each
            output.
    """
    from yolact_ros.export.options import ExportOptions

    add = documented(parser, add_arguments)
    add("checkpoint", metavar="CHECKPOINT")
    add("-o", "--output", required=True, metavar="BUNDLE")
    add("--compare", **FLAG)
    add_settings(parser, ExportOptions())


def run(arguments: argparse.Namespace) -> int:
    """Export the checkpoint, compare with torch, write the bundle, and print a summary."""
    from yolact_ros.cli.models import find_checkpoint
    from yolact_ros.export.options import ExportOptions
    from yolact_ros.export.to_bundle import export_bundle

    report = export_bundle(
        find_checkpoint(arguments.checkpoint),
        arguments.output,
        read_settings(arguments, ExportOptions()),
        images=THOROUGH_IMAGES if arguments.compare else QUICK_IMAGES,
    )
    if arguments.compare:
        _print_rows(report.rows)
    worst = max(row.error for row in report.rows)
    print(f"Largest relative difference from torch: {worst:.1e}")
    halves = [row.stored_error for row in report.rows if row.stored_error is not None]
    if arguments.precision == "fp16":
        print(f"In half precision: {max(halves):.1e}")
    print(f"{report.megabytes:.1f} MB in {report.seconds:.1f} s -> {arguments.output}")
    return 0


def _print_rows(rows: Sequence[OutputError]) -> None:
    table = [["graph and output", "relative error", "stored weights"]]
    for row in rows:
        stored = "" if row.stored_error is None else f"{row.stored_error:.1e}"
        table.append([f"{row.graph} {row.output}", f"{row.error:.1e}", stored])
    print(format_table(table))
