"""`yolact plot`: the curves of training runs as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders of `yolact train`, to compare"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="PNG", help="(default: curves.png in the first run)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Read the logs, draw them, and say where."""
    from yolact_ros.evaluate.charts import save_figure
    from yolact_ros.evaluate.run_curves import draw_runs, read_run

    path = arguments.output or arguments.runs[0] / "curves.png"
    save_figure(draw_runs([read_run(folder) for folder in arguments.runs]), path)
    print(path)
    return 0
