"""Export of a checkpoint to a bundle, compared with torch before anything is written."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.export.compare import check_errors, relative_errors
from yolact_ros.export.graphs import Graph, detection_graphs, host_graphs, video_graphs
from yolact_ros.export.to_onnx import export_module, halve_weights
from yolact_ros.model.deform_conv import set_deform_conv_form
from yolact_ros.model.weights import load_model
from yolact_ros.runtime.bundle import supported_warps, write_bundle


@dataclass(frozen=True)
class ComparisonRow:
    """How far one output of one graph is from torch, as a relative error.

    Attributes:
        error: of the exported graph.
        stored_error: of the graph as stored, when its weights are stored as float16.
    """

    graph: str
    output: str
    error: float
    stored_error: float | None


@dataclass(frozen=True)
class ExportReport:
    """What an export did."""

    rows: tuple[ComparisonRow, ...]
    megabytes: float
    seconds: float


def export_bundle(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    nms: str = "host",
    max_detections: int = 100,
    keyframes: bool = False,
    half_weights: bool = False,
    images: int = 2,
) -> ExportReport:
    """Write the bundle of a checkpoint.

    Args:
        checkpoint: path of a checkpoint that carries its configuration.
        folder: the bundle's folder; made anew, replaced if it is a bundle already.
        nms: `host` or `graph`: where thresholds, NMS and mask re-scoring run.
        max_detections: most detections of one image, fixed in the graph for `graph`.
        keyframes: write the graphs of video, which also serve single images.
        half_weights: store weights as float16 (see `to_onnx.halve_weights`).
        images: how many inputs each graph is compared with torch on.

    Raises:
        WeightsError: the checkpoint cannot be read.
        BackendError: a library is missing, or a graph differs from torch; nothing is written.
    """
    started = time.perf_counter()
    model = load_model(checkpoint)
    if nms == "host":
        graphs = host_graphs(model)
    else:
        graphs = detection_graphs(model, max_detections=max_detections)
    if keyframes:
        graphs = video_graphs(graphs)
    contents: dict[str, bytes] = {}
    rows: list[ComparisonRow] = []
    for graph in graphs:
        set_deform_conv_form(model, "onnx_deform_conv")
        content = export_module(
            graph.module,
            graph.example,
            inputs=graph.inputs,
            outputs=graph.outputs,
            free=graph.free,
        )
        set_deform_conv_form(model, "grid_sample")
        stored = halve_weights(content) if half_weights else content
        rows += _compare(graph, content, stored, images=images)
        contents[graph.name] = stored
    write_bundle(
        folder,
        model.config,
        postprocess=nms,
        max_detections=max_detections,
        graphs=contents,
        warps=supported_warps(model.config) if keyframes else (),
        source={
            "checkpoint": Path(checkpoint).name,
            "sha256": hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
        },
        versions=_versions(),
    )
    megabytes = sum(len(content) for content in contents.values()) / 1e6
    return ExportReport(tuple(rows), megabytes, time.perf_counter() - started)


def _compare(graph: Graph, content: bytes, stored: bytes, *, images: int) -> list[ComparisonRow]:
    errors = relative_errors(graph, content, images=images)
    check_errors(errors, graph=graph.name)
    stored_errors = relative_errors(graph, stored, images=images) if stored is not content else {}
    if not all(np.isfinite(value) for value in stored_errors.values()):
        raise BackendError(
            f"Graph {graph.name!r} is no longer usable with weights stored as float16; "
            "export without --half-weights."
        )
    return [
        ComparisonRow(graph.name, name, error, stored_errors.get(name))
        for name, error in errors.items()
    ]


def _versions() -> dict[str, str]:
    import onnx
    import torch

    return {"torch": torch.__version__, "onnx": onnx.__version__, "numpy": np.__version__}
