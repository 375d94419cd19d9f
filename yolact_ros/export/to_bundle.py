"""Export a checkpoint to a bundle, which is compared with torch before it is written."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from yolact_ros.errors import BackendError
from yolact_ros.export.compare import HALF_TOLERANCE, check_errors, relative_errors
from yolact_ros.export.graphs import Graph, detection_graphs, host_graphs, video_graphs
from yolact_ros.export.half_precision import to_half
from yolact_ros.export.options import ExportOptions
from yolact_ros.export.to_onnx import export_module, halve_weights
from yolact_ros.model.deform_conv import set_deform_conv_form
from yolact_ros.model.weights.checkpoint import load_model
from yolact_ros.runtime.bundle import ModelDescription, supported_warps
from yolact_ros.runtime.bundle_writer import write_bundle

DEFAULTS = ExportOptions()


@dataclass(frozen=True)
class OutputError:
    """Holds the relative error of one output of one graph, compared with torch.

    Attributes:
        error: error of the exported graph.
        stored_error: error of the stored graph, if it stores weights or computes in float16.
    """

    graph: str
    output: str
    error: float
    stored_error: float | None


@dataclass(frozen=True)
class ExportReport:
    """Holds the result of an export."""

    rows: tuple[OutputError, ...]
    megabytes: float
    seconds: float


def export_bundle(
    checkpoint: str | Path,
    folder: str | Path,
    options: ExportOptions = DEFAULTS,
    *,
    images: int = 2,
) -> ExportReport:
    """Write the bundle of a checkpoint.

    Args:
        checkpoint: path of a checkpoint that carries its configuration.
        folder: folder of the bundle; an existing bundle there is replaced.
        options: what the bundle is for.
        images: number of inputs on which each graph is compared with torch.

    Raises:
        WeightsError: the checkpoint cannot be read.
        BackendError: a graph differs from torch; nothing is written.
    """
    started = time.perf_counter()
    model = load_model(checkpoint)
    half = options.precision == "fp16"
    top_k = None
    if options.nms_in_graph:
        form_of_detect = "with_masks" if options.masks == "graph" else "with_nms"
        top_k = options.top_k
        graphs = detection_graphs(
            model,
            max_detections=options.max_detections,
            batch=options.batch,
            masks=options.masks == "graph",
            top_k=top_k,
        )
    else:
        form_of_detect = "on_demand"
        graphs = host_graphs(model)
    if options.keyframes:
        graphs = video_graphs(graphs, batch=options.batch)
    contents: dict[str, bytes] = {}
    rows: list[OutputError] = []
    with _progress(steps=2 * len(graphs)) as bar:
        for graph in graphs:
            bar.set_postfix_str(f"{graph.name}, to ONNX")
            set_deform_conv_form(model, options.deform_conv_form)
            content = export_module(
                graph.module,
                graph.example,
                inputs=graph.inputs,
                outputs=graph.outputs,
                free=graph.free,
            )
            set_deform_conv_form(model, "grid_sample")
            stored = content
            if options.half_weights:
                stored = halve_weights(content)
            elif half:
                half_sampling = options.sampling == "half"
                stored = to_half(content, half_sampling=half_sampling)
            bar.update()
            bar.set_postfix_str(f"{graph.name}, compared with torch")
            rows += _compare(graph, content, stored, images=images, half=half)
            contents[graph.name] = stored
            bar.update()
    description = ModelDescription(
        model.config,
        form_of_detect,
        options.max_detections,
        warps=supported_warps(model.config) if options.keyframes else (),
        target=options.target,
        precision=options.precision,
        batch=options.batch,
        top_k=top_k,
    )
    write_bundle(
        folder,
        description,
        graphs=contents,
        source={
            "checkpoint": Path(checkpoint).name,
            "sha256": hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
        },
        versions=_versions(),
    )
    megabytes = sum(len(content) for content in contents.values()) / 1e6
    return ExportReport(tuple(rows), megabytes, time.perf_counter() - started)


@contextlib.contextmanager
def _progress(*, steps: int) -> Iterator[tqdm]:
    """Show a bar and redraw it every second, because a step of a large network takes a minute."""
    ended = threading.Event()

    def redraw() -> None:
        while not ended.wait(1.0):
            bar.refresh()

    with tqdm(total=steps, desc="export", unit="step", leave=False) as bar:
        thread = threading.Thread(target=redraw, name="export progress", daemon=True)
        thread.start()
        try:
            yield bar
        finally:
            ended.set()
            thread.join()


def _compare(
    graph: Graph, content: bytes, stored: bytes, *, images: int, half: bool
) -> list[OutputError]:
    errors = relative_errors(graph, content, images=images)
    check_errors(errors, graph=graph.name)
    stored_errors = {}
    if stored is not content:
        stored_errors = relative_errors(graph, stored, images=images, half=half)
    if half:
        check_errors(stored_errors, graph=graph.name, tolerance=HALF_TOLERANCE)
    elif not all(np.isfinite(value) for value in stored_errors.values()):
        raise BackendError(
            f"Graph {graph.name!r} is unusable with weights stored as float16; "
            "export without --half-weights."
        )
    return [
        OutputError(graph.name, name, error, stored_errors.get(name))
        for name, error in errors.items()
    ]


def _versions() -> dict[str, str]:
    import onnx
    import torch

    return {"torch": torch.__version__, "onnx": onnx.__version__, "numpy": np.__version__}
