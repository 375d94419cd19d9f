"""`yolact evaluate --video`: measure accuracy and time of feature reuse and propagation."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.config import WARPS
from yolact_ros.errors import ConfigError

if TYPE_CHECKING:
    from yolact_ros.evaluate.video import VideoRow
    from yolact_ros.runtime.segmenter import Segmenter

INTERVALS = (1, 2, 3, 5, 8)


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the evaluation on clips."""
    group = parser.add_argument_group("clips")
    group.add_argument(
        "--video",
        nargs="+",
        type=Path,
        metavar="CLIP",
        help="folders of `yolact simulate clip`, or YouTube-VIS annotations with --images; "
        "replaces --annotations",
    )
    group.add_argument(
        "--intervals",
        type=_intervals,
        metavar="N,N,...",
        help="keyframe intervals; 1, the full pass, is always measured "
        f"(default: {','.join(map(str, INTERVALS))} with a model that was exported with "
        "--keyframes, otherwise 1)",
    )
    group.add_argument(
        "--warp",
        action="extend",
        type=_warps,
        metavar="W,W,...",
        help=f"how features are warped: {', '.join(WARPS)} (default: all that the model supports)",
    )
    group.add_argument(
        "--propagated-frames",
        type=_counts,
        default=(0,),
        metavar="N,N,...",
        help="images after each inference to which detections are propagated (default: 0)",
    )
    group.add_argument(
        "--change-threshold",
        type=float,
        default=1.0,
        metavar="X",
        help="change of the image that forces a keyframe (default: 1 = never)",
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
        change_threshold=arguments.change_threshold,
        limit=arguments.limit,
    )
    print(format_rows(rows))
    machine = describe_machine()
    print(
        f"{rows[0].frames} frames of {len(clips)} clips; "
        + ", ".join(f"{key} {value}" for key, value in machine.items())
    )
    return {
        "model": {"name": description.model.name, "identity": description.identity},
        "settings": {
            **dataclasses.asdict(segmenter.postprocess),
            "change_threshold": arguments.change_threshold,
        },
        "clips": [{"name": clip.name, "frames": len(clip)} for clip in clips],
        "rows": [dataclasses.asdict(row) for row in rows],
        "machine": machine,
    }


def format_rows(rows: Sequence[VideoRow]) -> str:
    """Format a table with AP and J in percent; the full pass appears once."""
    lines = [
        f"{'interval':>8}  {'warp':<8}{'propagated':>10}{'mask AP':>8}{'AP50':>8}{'box AP':>8}"
        f"{'non-key':>9}{'(full)':>8}{'J':>7}{'ms':>9}{'key':>8}{'non-key':>9}"
        f"{'relative':>9}{'p50':>6}"
    ]
    for row in rows:
        if row.interval == 1 and row is not rows[0]:
            continue
        warp = "-" if row.interval == 1 else row.warp or "-"
        between = "-" if row.non_keyframe_ms is None else f"{row.non_keyframe_ms:.1f}"
        lines.append(
            f"{row.interval:>8}  {warp:<8}{row.propagated_frames:>10}"
            f"{_percent(row.mask_ap):>8}{_percent(row.mask_ap50):>8}"
            f"{_percent(row.box_ap):>8}{_percent(row.mask_ap_non_key):>9}"
            f"{_percent(row.full_pass_ap_non_key):>8}{_percent(row.region_similarity):>7}"
            f"{row.mean_ms:>9.1f}{row.keyframe_ms:>8.1f}{between:>9}"
            f"{row.relative_ms:>9.2f}{row.relative_p50:>6.2f}"
        )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _intervals(text: str) -> tuple[int, ...]:
    return _numbers(text, 1, 1000)


def _counts(text: str) -> tuple[int, ...]:
    return _numbers(text, 0, 100)


def _numbers(text: str, low: int, high: int) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.strip().isdigit() and low <= int(word) <= high for word in words):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of integers from {low} to {high}, e.g. 1,2"
        )
    return tuple(dict.fromkeys(int(word) for word in words))


def _warps(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if word not in WARPS]
    if wrong:
        raise argparse.ArgumentTypeError(
            f"{', '.join(wrong)} is not a warp; expected some of: {', '.join(WARPS)}"
        )
    return words


def check_video_arguments(arguments: argparse.Namespace) -> None:
    """Check that the arguments name either images or clips.

    Raises:
        ConfigError: they name neither, or both.
    """
    if arguments.video and arguments.annotations:
        raise ConfigError("Both --video and --annotations are given; give one of them.")
    shows_images = not is_results(arguments.model) or arguments.report
    if not arguments.video and not (
        arguments.annotations and (arguments.images or not shows_images)
    ):
        raise ConfigError("Give --annotations and --images, or --video.")


def is_results(model: str) -> bool:
    """Return whether the argument `model` names results instead of a model."""
    return model.endswith(".json")
