"""`yolact evaluate --video`: measure accuracy and time of feature reuse and propagation."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.table import format_machine, format_table, percent
from yolact_ros.cli.values import numbers
from yolact_ros.config import WARPS
from yolact_ros.errors import ConfigError

if TYPE_CHECKING:
    from yolact_ros.evaluate.video import VideoRow
    from yolact_ros.runtime.segmenter import Segmenter

INTERVALS = (1, 2, 3, 5, 8)
TITLES = (
    *("interval", "warp", "propagated", "mask AP", "AP50", "box AP", "non-key", "(full)", "J"),
    *("ms", "key", "non-key", "relative", "p50"),
)


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the evaluation on clips."""
    add = parser.add_argument_group("clips").add_argument
    add(
        "--video",
        nargs="+",
        type=Path,
        metavar="CLIP",
        help="clips to evaluate instead of --annotations: folders that `yolact simulate clip` "
        "wrote, or annotations in YouTube-VIS format with --images",
    )
    add(
        "--intervals",
        **numbers(1, 1000),
        help="keyframe intervals to measure; 1, the full network on every image, is always "
        f"included (default: {','.join(map(str, INTERVALS))} with a model that was exported "
        "with --keyframes, otherwise 1)",
    )
    add(
        "--warp",
        action="extend",
        type=_warps,
        metavar="W,W,...",
        help=f"warps of the features to measure, out of {', '.join(WARPS)} (default: all that "
        "the model supports)",
    )
    add(
        "--propagated-frames",
        **numbers(0, 100, (0,)),
        help="numbers of images after each inference on which detections are propagated "
        "(default: 0)",
    )


def evaluate_clips(arguments: argparse.Namespace, segmenter: Segmenter) -> dict[str, Any]:
    """Evaluate and print; return the content of the JSON file."""
    from yolact_ros.evaluate.clips import read_clips
    from yolact_ros.evaluate.machine import describe_machine
    from yolact_ros.evaluate.video import evaluate_video

    description = segmenter.description
    clips = read_clips(arguments.video, images=arguments.images, classes=description.model.classes)
    rows = evaluate_video(
        segmenter,
        clips,
        intervals=arguments.intervals or (INTERVALS if description.warps else (1,)),
        warps=tuple(dict.fromkeys(arguments.warp or ())),
        propagated_frames=arguments.propagated_frames,
        limit=arguments.limit,
    )
    print(format_rows(rows))
    machine = describe_machine()
    print(f"{rows[0].frames} frames of {len(clips)} clips; {format_machine(machine)}")
    return {
        "model": {"name": description.model.name, "identity": description.identity},
        "settings": dataclasses.asdict(segmenter.postprocess),
        "clips": [{"name": clip.name, "frames": len(clip)} for clip in clips],
        "rows": [dataclasses.asdict(row) for row in rows],
        "machine": machine,
    }


def format_rows(rows: Sequence[VideoRow]) -> str:
    """Format a table with AP and J in percent; the full pass appears once."""
    table: list[Sequence[str]] = [TITLES]
    for row in rows:
        if row.interval == 1 and row is not rows[0]:
            continue
        fractions = (
            *(row.mask_ap, row.mask_ap50, row.box_ap, row.mask_ap_non_key),
            *(row.full_pass_ap_non_key, row.region_similarity),
        )
        table.append(
            [
                str(row.interval),
                "-" if row.interval == 1 else row.warp or "-",
                str(row.propagated_frames),
                *(percent(value, 1) for value in fractions),
                f"{row.mean_ms:.1f}",
                f"{row.keyframe_ms:.1f}",
                "-" if row.non_keyframe_ms is None else f"{row.non_keyframe_ms:.1f}",
                f"{row.relative_ms:.2f}",
                f"{row.relative_p50:.2f}",
            ]
        )
    return format_table(table)


def _warps(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if word not in WARPS]
    if wrong:
        raise argparse.ArgumentTypeError(
            f"{', '.join(wrong)} is not a warp; expected one or more of: {', '.join(WARPS)}"
        )
    return words


def check_video_arguments(arguments: argparse.Namespace) -> None:
    """Check that the arguments name either images or clips.

    Raises:
        ConfigError: they name neither, or both.
    """
    if arguments.video and arguments.annotations:
        raise ConfigError("--video and --annotations are both given; give only one of them.")
    shows_images = not is_results(arguments.model) or arguments.report
    if not arguments.video and not (
        arguments.annotations and (arguments.images or not shows_images)
    ):
        raise ConfigError(
            "There is nothing to evaluate. Give --annotations and --images, or --video."
        )


def is_results(model: str) -> bool:
    """Return whether the argument `model` names results instead of a model."""
    return model.endswith(".json")
