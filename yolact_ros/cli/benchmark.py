"""`yolact benchmark`: measure the time per stage, the frame rate and the memory use."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.inference import (
    MODEL,
    add_segmenter_arguments,
    add_stream_arguments,
    open_segmenter,
    read_postprocess,
)
from yolact_ros.cli.settings import FILE, FLAG, JSON, documented, number, read_settings
from yolact_ros.cli.table import format_machine, format_table, percent
from yolact_ros.config import DEFAULT_MODEL, KeyframeConfig
from yolact_ros.errors import BundleError, ConfigError
from yolact_ros.files import write_json
from yolact_ros.variants import variant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from yolact_ros.evaluate.backend_comparison import ComparisonRow
    from yolact_ros.evaluate.speed import Times

CLIP = Path("models") / "demo" / "tabletop.mp4"
SYNTHETIC_SIZE = (720, 1280)
SCENES = (0, 20, 100)  # instances
TITLES = [
    *("model", "weights", "backend", "threads"),
    *("p50 ms", "least", "ratio", "agreement", "mask AP"),
]
NO_IMAGE = "a synthetic image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact benchmark`.

    Example:
        tools --images data/tools/val

    Options:
        --images: images to segment (default: the shipped demo clip).
        --frames: number of frames to measure.
        --json: write all measurements to this file.
        --compare: compare all installed libraries and precisions, on the model and on these other
            bundles of it, e.g. in int8.
        --annotations: also measure the mask AP on these COCO annotations; requires --compare and
            --images.
        --store: make `backend: auto` use the fastest combination on this machine that loses at
            most 0.5 mask AP or, without --annotations, the fastest one in float32; requires
            --compare.
        --postprocess: measure only the post-processing for this network, e.g. yolact_resnet50, on
            synthetic 1280x720 scenes, without running a model.
    """
    add = documented(parser, add_arguments)
    add("model", metavar="MODEL", nargs="?", default=DEFAULT_MODEL, help=MODEL)
    add("--images", type=Path, metavar="FOLDER|VIDEO")
    add("--frames", **number(1, 1_000_000, 100))
    add("--json", **FILE)
    add("--compare", type=Path, nargs="*", metavar="BUNDLE")
    add("--annotations", **JSON)
    add("--store", **FLAG)
    add("--postprocess", metavar="VARIANT")
    add_segmenter_arguments(parser)
    add_stream_arguments(parser, tracker=False)


def run(arguments: argparse.Namespace) -> int:
    """Measure the speed and print it."""
    if arguments.compare is None and (arguments.annotations or arguments.store):
        raise ConfigError("--annotations and --store require --compare.")
    if arguments.annotations and not arguments.images:
        raise ConfigError("--annotations requires --images, the folder of the annotated images.")
    if arguments.postprocess:
        measure = _measure_postprocess
    else:
        measure = _measure_model if arguments.compare is None else _compare
    content = measure(arguments)
    print(format_machine(content["machine"]))
    if arguments.json:
        write_json(arguments.json, content)
    return 0


def _measure_model(arguments: argparse.Namespace) -> dict[str, Any]:
    from yolact_ros.evaluate.speed import measure_speed
    from yolact_ros.runtime.images.files import is_video

    keyframes = read_settings(arguments, KeyframeConfig())
    source, images = _input(arguments)
    with open_segmenter(arguments) as segmenter:
        stream = segmenter.stream(keyframes) if source and is_video(source) else None
        segmenter.warm_up(keyframes if stream else None)
        segment = stream.detect if stream else segmenter.segment
        report = measure_speed(segment, images, frames=arguments.frames)
        name = segmenter.description.model.name
    print(f"{name} ({arguments.model}) on {source or NO_IMAGE}, {report.frames} frames")
    print(format_times(report.stages))
    print(
        f"{report.frames_per_second:.1f} frames/s, {report.instances:.1f} instances per frame, "
        f"peak memory {report.peak_memory_mb:.0f} MB"
    )
    return {"model": name, "input": str(source or "synthetic"), **dataclasses.asdict(report)}


def _input(arguments: argparse.Namespace) -> tuple[Path | None, Iterator[np.ndarray]]:
    """Return the path of the images (None for a synthetic picture) and the endless images."""
    from itertools import repeat

    from yolact_ros.evaluate.speed import endless_images, synthetic_image
    from yolact_ros.runtime.shipped import shipped_file

    source = arguments.images
    if source is None:
        try:
            source = shipped_file(CLIP)
        except BundleError:
            print(
                "No --images were given, and this installation lacks the demo clip: the input "
                "is a synthetic image, whose detections differ from those of camera images."
            )
    return source, endless_images(source) if source else repeat(synthetic_image(SYNTHETIC_SIZE))


def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    from yolact_ros.evaluate.backend_comparison import best_choice, compare_backends, with_mask_ap
    from yolact_ros.evaluate.machine import describe_machine
    from yolact_ros.runtime.backends.onnxruntime import physical_cores
    from yolact_ros.runtime.backends.open import label, store_choice
    from yolact_ros.runtime.bundle import Bundle
    from yolact_ros.runtime.shipped import find_model

    models = {str(model): find_model(model) for model in (arguments.model, *arguments.compare)}
    most = arguments.threads or physical_cores()
    source, images = _input(arguments)
    comparison = compare_backends(
        models,
        images,
        frames=arguments.frames,
        threads=sorted({arguments.threads or 1, most}),
        postprocess=read_postprocess(arguments),
    )
    rows: Sequence[ComparisonRow] = comparison.rows
    if arguments.annotations:
        from yolact_ros.cli.evaluate import DEFAULTS
        from yolact_ros.datasets.coco import CocoDataset

        classes = Bundle.open(models[rows[0].model]).description.model.classes
        dataset = CocoDataset(arguments.annotations, arguments.images, classes=classes)
        rows = with_mask_ap(rows, models, dataset, read_postprocess(arguments, DEFAULTS))
    print(f"{rows[0].model} on {source or NO_IMAGE}, {arguments.frames} frames")
    print("\n".join((format_comparison(rows), *comparison.failures)))
    if arguments.store:
        best = best_choice([row for row in rows if row.config.threads == most])
        path = store_choice(Bundle.open(models[rows[0].model]).description.identity, best)
        print(
            f"`backend: auto` now uses {label(best)} on this machine; delete {path} to undo that."
        )
    return {
        "input": str(source or "synthetic"),
        "rows": [dataclasses.asdict(row) for row in rows],
        "failures": comparison.failures,
        "machine": describe_machine(),
    }


def format_comparison(rows: Sequence[ComparisonRow]) -> str:
    """Format a table with the milliseconds and accuracy (%) of each way to run a model."""
    from yolact_ros.runtime.backends.open import label

    table = [TITLES]
    for row in rows:
        how = [row.model, row.weights, label(row.config), str(row.config.threads)]
        speed = [f"{value:.2f}" for value in (row.times.p50, row.times.least, row.ratio)]
        table.append([*how, *speed, percent(row.agreement), percent(row.mask_ap)])
    return format_table(table)


def _measure_postprocess(arguments: argparse.Namespace) -> dict[str, Any]:
    from yolact_ros.evaluate.machine import describe_machine
    from yolact_ros.evaluate.speed import measure_postprocess

    model = variant(arguments.postprocess)
    scenes = {}
    for instances in SCENES:
        times = measure_postprocess(
            model, instances=instances, image_size=SYNTHETIC_SIZE, repetitions=arguments.frames
        )
        title = f"{instances} instances"
        scenes[title] = {stage: dataclasses.asdict(value) for stage, value in times.items()}
        print(f"{title} at 1280x720\n{format_times(times)}\n")
    return {"variant": model.name, "scenes": scenes, "machine": describe_machine()}


def format_times(stages: Mapping[str, Times]) -> str:
    """Format a table of milliseconds, one line per stage."""
    rows = [["ms", "p50", "p95", "mean", "least"]]
    for stage, t in stages.items():
        rows.append([stage, *(f"{value:.2f}" for value in (t.p50, t.p95, t.mean, t.least))])
    return format_table(rows)
