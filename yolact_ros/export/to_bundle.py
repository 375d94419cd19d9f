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

from yolact_ros.config import PostprocessConfig
from yolact_ros.errors import BackendError, ConfigError
from yolact_ros.export.compare import HALF_TOLERANCE, check_errors, relative_errors
from yolact_ros.export.graphs import Graph, detection_graphs, host_graphs, video_graphs
from yolact_ros.export.half_precision import HALF_BORDERS, to_half
from yolact_ros.export.to_onnx import export_module, halve_weights
from yolact_ros.model.deform_conv import FORMS, set_deform_conv_form
from yolact_ros.model.weights.checkpoint import load_model
from yolact_ros.runtime.bundle import TARGETS, supported_warps
from yolact_ros.runtime.bundle_writer import write_bundle

# The form of deformable convolution that runs wherever the target does.
DEFORM_CONV_FORMS = {"onnxruntime": "deform_conv", "tensorrt": "grid_sample"}

MAX_BATCH = 64


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
    *,
    nms: str = "host",
    masks: str = "host",
    max_detections: int = 100,
    top_k: int = PostprocessConfig.top_k,
    keyframes: bool = False,
    half_weights: bool = False,
    target: str = "onnxruntime",
    precision: str = "fp32",
    batch: int = 1,
    deform_conv: str | None = None,
    sampling: str = "float",
    images: int = 2,
) -> ExportReport:
    """Write the bundle of a checkpoint.

    Args:
        checkpoint: path of a checkpoint that carries its configuration.
        folder: folder of the bundle; an existing bundle there is replaced.
        nms: where thresholds, NMS and mask re-scoring run, `host` or `graph`.
        masks: where masks are assembled from prototypes, `host` or `graph` (needs NMS in the
            graph).
        max_detections: maximum detections per image, fixed in a graph with NMS.
        top_k: candidates per class for NMS inside the graph, where it is fixed.
        keyframes: write the graphs for video, which also serve single images.
        half_weights: store weights as float16 (see `to_onnx.halve_weights`).
        target: `onnxruntime` or `tensorrt`. A bundle for TensorRT has NMS in the graph, and
            deformable convolution in operators that TensorRT has.
        precision: precision of the arithmetic, `fp32` or `fp16` (see `half_precision`).
        batch: number of images per run.
        deform_conv: form of deformable convolution, one of `model.deform_conv.FORMS`; by default
            the one that runs wherever the target does.
        sampling: precision of GridSample in half precision, `float` or `half` (see
            `half_precision.to_half`).
        images: number of inputs on which each graph is compared with torch.

    Raises:
        ConfigError: the options cannot be combined.
        WeightsError: the checkpoint cannot be read.
        BackendError: a library is missing, or a graph differs from torch; nothing is written.
    """
    started = time.perf_counter()
    if target == "tensorrt":
        nms = "graph"
    _check_options(target=target, precision=precision, batch=batch, half_weights=half_weights)
    if sampling not in ("float", "half") or (sampling == "half" and precision != "fp16"):
        raise ConfigError(
            f"sampling is {sampling!r}; expected float, or half together with precision fp16."
        )
    if masks not in ("host", "graph") or (masks == "graph" and nms == "host"):
        raise ConfigError(f"masks is {masks!r}; expected host, or graph together with nms graph.")
    PostprocessConfig(max_detections=max_detections, top_k=top_k)  # raises if out of range
    form = DEFORM_CONV_FORMS[target] if deform_conv is None else deform_conv
    if form not in FORMS:
        raise ConfigError(f"deform_conv is {form!r}; expected one of: {', '.join(FORMS)}.")
    if nms == "host" and top_k != PostprocessConfig.top_k:
        raise ConfigError("With --nms host, top_k is set at run time; omit --top-k.")
    if keyframes and batch > 1:
        raise ConfigError(
            "Graphs for video process one image per run; export them with --batch 1."
        )
    model = load_model(checkpoint)
    form_of_detect = {"host": "with_nms", "graph": "with_masks"}[masks]
    if nms == "host":
        form_of_detect = "on_demand"
        graphs = host_graphs(model)
    else:
        graphs = detection_graphs(
            model,
            max_detections=max_detections,
            batch=batch,
            masks=masks == "graph",
            top_k=top_k,
        )
    if keyframes:
        graphs = video_graphs(graphs)
    contents: dict[str, bytes] = {}
    rows: list[OutputError] = []
    with _progress(steps=2 * len(graphs)) as bar:
        for graph in graphs:
            bar.set_postfix_str(f"{graph.name}, to ONNX")
            set_deform_conv_form(model, form)
            content = export_module(
                graph.module,
                graph.example,
                inputs=graph.inputs,
                outputs=graph.outputs,
                free=graph.free,
            )
            set_deform_conv_form(model, "grid_sample")
            stored = content
            if half_weights:
                stored = halve_weights(content)
            elif precision == "fp16":
                half_sampling = sampling == "half"
                stored = to_half(content, half_borders=HALF_BORDERS, half_sampling=half_sampling)
            bar.update()
            bar.set_postfix_str(f"{graph.name}, compared with torch")
            rows += _compare(graph, content, stored, images=images, half=precision == "fp16")
            contents[graph.name] = stored
            bar.update()
    write_bundle(
        folder,
        model.config,
        detect_form=form_of_detect,
        max_detections=max_detections,
        graphs=contents,
        warps=supported_warps(model.config) if keyframes else (),
        target=target,
        precision=precision,
        batch=batch,
        top_k=top_k if nms == "graph" else None,
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
    """Show a bar and redraw it every second: a step of a large network takes a minute."""
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


def _check_options(*, target: str, precision: str, batch: int, half_weights: bool) -> None:
    if target not in TARGETS:
        raise ConfigError(f"target is {target!r}; expected one of: {', '.join(TARGETS)}.")
    if precision not in ("fp32", "fp16"):
        raise ConfigError(f"precision is {precision!r}; expected fp32 or fp16.")
    if not 1 <= batch <= MAX_BATCH:
        raise ConfigError(f"batch is {batch}; expected a number from 1 to {MAX_BATCH}.")
    if target == "onnxruntime" and (precision != "fp32" or batch > 1):
        raise ConfigError(
            "Half precision and batches are for --target tensorrt; a CPU computes in float32, and "
            "--half-weights halves the file size."
        )
    if target == "tensorrt" and half_weights:
        raise ConfigError("--half-weights is for ONNX Runtime; TensorRT has --precision fp16.")


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
