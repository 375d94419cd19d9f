"""`yolact evaluate`: measure the COCO box and mask AP of a model."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.inference import (
    MODEL,
    add_segmenter_arguments,
    open_segmenter,
    read_postprocess,
)
from yolact_ros.cli.settings import FILE, FOLDER, JSON, documented, number, numbers, read_settings
from yolact_ros.cli.table import format_machine, format_table, percent
from yolact_ros.config import WARPS, BackendConfig, PostprocessConfig
from yolact_ros.errors import ConfigError
from yolact_ros.files import write_json

if TYPE_CHECKING:
    from yolact_ros.datasets.coco import CocoDataset
    from yolact_ros.evaluate.coco_map import CocoScores, Evaluation
    from yolact_ros.evaluate.video import VideoRow
    from yolact_ros.runtime.segmenter import Segmenter

# AP ranks all detections, so a high threshold would cut off its tail (reference:
# `nms_conf_thresh`).
DEFAULTS = PostprocessConfig(score_threshold=0.05)

COLUMNS = {
    **{"AP": "ap", "AP50": "ap50", "AP75": "ap75"},
    **{f"AP {size}": f"ap_{size}" for size in ("small", "medium", "large")},
    **{"AR1": "ar_1", "AR10": "ar_10", "AR100": "ar_100"},
    **{f"AR {size}": f"ar_{size}" for size in ("small", "medium", "large")},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact evaluate`.

    Example:
        tools --annotations data/val.json --images data/val --report out/report

    Options:
        --annotations: annotations in COCO format.
        --images: folder of the annotated images.
        --json: write all measurements to this file.
        --limit: evaluate only the first N images, or the first N frames of each clip.
        --report: write a summary, precision-recall curves, the confusion matrix and images of the
            worst mistakes to this folder.
        --report-score: minimum class score of the detections in the report's confusion matrix and
            images of mistakes.
    """
    add = documented(parser, add_arguments)
    add(
        "model",
        metavar="MODEL",
        help=f"{MODEL}; or results to compare with --annotations, a .json file that `yolact "
        "predict --json` or `yolact batch` wrote with --score-threshold 0.05",
    )
    add("--annotations", **JSON)
    add("--images", **FOLDER)
    add("--json", **FILE)
    add("--limit", **number(1, 10**9))
    add("--report", **FOLDER)
    add("--report-score", **number(0.0, 1.0, PostprocessConfig().score_threshold))
    add_video_arguments(parser)
    add_segmenter_arguments(parser, DEFAULTS)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print the results."""
    check_video_arguments(arguments)
    if arguments.report:
        if arguments.video:
            raise ConfigError("--report is for images; it cannot be combined with --video.")
        import matplotlib  # noqa: F401  # fails before the evaluation if the report cannot be drawn
    if is_results(arguments.model):
        content = _evaluate_results(arguments)
    else:
        with open_segmenter(arguments, DEFAULTS) as segmenter:
            evaluate = evaluate_clips if arguments.video else _evaluate_images
            content = evaluate(arguments, segmenter)
    if arguments.json:
        write_json(arguments.json, content)
    return 0


def _evaluate_images(arguments: argparse.Namespace, segmenter: Segmenter) -> dict[str, Any]:
    """Evaluate, print and report; return the content of the JSON file."""
    from yolact_ros.datasets.coco import CocoDataset
    from yolact_ros.evaluate.coco_map import evaluate_dataset

    description = segmenter.description
    dataset = CocoDataset(
        arguments.annotations, arguments.images, classes=description.model.classes
    )
    evaluation = evaluate_dataset(segmenter.segment, dataset, limit=arguments.limit)
    content = {
        "model": {"name": description.model.name, "identity": description.identity},
        "settings": dataclasses.asdict(segmenter.postprocess),
    }
    return _report(arguments, evaluation, dataset, content)


def _evaluate_results(arguments: argparse.Namespace) -> dict[str, Any]:
    """Evaluate existing results; return the content of the JSON file."""
    from yolact_ros.datasets.coco import CocoDataset
    from yolact_ros.evaluate.results import evaluate_results

    backend = read_settings(arguments, BackendConfig())
    settings = read_postprocess(arguments, DEFAULTS), backend
    if arguments.video or settings != (DEFAULTS, BackendConfig()):
        raise ConfigError(
            f"{arguments.model} contains results; --video and the flags for detections and the "
            "backend apply only to the command that writes results."
        )
    dataset = CocoDataset(arguments.annotations, arguments.images or arguments.annotations.parent)
    evaluation = evaluate_results(Path(arguments.model), dataset, limit=arguments.limit)
    return _report(arguments, evaluation, dataset, {"model": {"name": arguments.model}})


def _report(
    arguments: argparse.Namespace,
    evaluation: Evaluation,
    dataset: CocoDataset,
    content: dict[str, Any],
) -> dict[str, Any]:
    """Print the numbers, add them to `content`, and write the report."""
    from yolact_ros.evaluate.machine import describe_machine

    scores = evaluation.scores
    text, machine = format_scores(scores), describe_machine()
    print(text)
    content |= {**dataclasses.asdict(scores), "machine": machine}
    if arguments.report:
        from yolact_ros.evaluate.report import write_report

        text += f"\n\n{format_machine(machine)}"
        score = arguments.report_score
        write_report(
            arguments.report,
            evaluation,
            dataset,
            content=content,
            score_threshold=score,
            text=text,
        )
        print(f"Report: {arguments.report / 'summary.md'}")
    return content


def format_scores(scores: CocoScores) -> str:
    """Format tables in percent."""
    overall = [["", *COLUMNS]]
    for kind, values in (("box", scores.box), ("mask", scores.mask)):
        overall.append([kind, *(percent(values[key]) for key in COLUMNS.values())])
    classes = [["class", "instances", "box AP", "mask AP"]]
    for name, row in scores.classes.items():
        classes.append([name, str(row.instances), percent(row.box_ap), percent(row.mask_ap)])
    summary = f"{scores.images} images, {scores.detections} detections"
    if scores.milliseconds:
        times = [f"{stage} {value:.1f} ms" for stage, value in scores.milliseconds.items()]
        summary += f"; mean {', '.join(times)}"
    return "\n\n".join([format_table(overall), format_table(classes), summary])


INTERVALS = (1, 2, 3, 5, 8)
TITLES = (
    *("interval", "warp", "propagated", "mask AP", "AP50", "box AP", "non-key", "(full)", "J"),
    *("ms", "key", "non-key", "relative", "p50"),
)


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the evaluation on clips.

    Options:
        --video: clips to evaluate instead of --annotations: folders that `yolact simulate clip`
            wrote, or annotations in YouTube-VIS format with --images.
        --propagated-frames: numbers of images after each inference on which detections are
            propagated (default: 0).
    """
    add = documented(parser.add_argument_group("clips"), add_video_arguments)
    add("--video", nargs="+", type=Path, metavar="CLIP")
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
        help=f"feature warps to measure: any of {', '.join(WARPS)} (default: all that the model "
        "supports)",
    )
    add("--propagated-frames", **numbers(0, 100, (0,)))


def evaluate_clips(arguments: argparse.Namespace, segmenter: Segmenter) -> dict[str, Any]:
    """Evaluate and print; return the content of the JSON file."""
    from yolact_ros.evaluate.machine import describe_machine
    from yolact_ros.evaluate.video import evaluate_video, read_clips

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
