"""Hold an exported graph on ONNX Runtime against the torch module that it was made from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from yolact_ros.errors import BackendError
from yolact_ros.export.graphs import Graph
from yolact_ros.model.detection_graph import DetectionTensors

# Largest |difference| over largest |value| of a tensor. Float32 sums in another order give about
# 1e-6 a layer; a wrong operator gives far more.
TOLERANCE = 1e-3


def relative_errors(graph: Graph, content: bytes, *, images: int = 2) -> dict[str, float]:
    """Run both on the same inputs.

    Args:
        graph: the torch side, in evaluation mode.
        content: the exported ONNX model.
        images: how many different inputs.

    Returns:
        For each output its largest relative error (see `TOLERANCE`).

    Raises:
        BackendError: ONNX Runtime is absent or refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "Comparing needs onnxruntime; install it with: pip install 'yolact_ros[onnxruntime]'"
        ) from error
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types are not exported
        raise BackendError(f"ONNX Runtime refuses the graph {graph.name!r}: {error}") from error
    errors = dict.fromkeys(graph.outputs, 0.0)
    for seed in range(images):
        inputs = graph.draw(seed)
        with torch.no_grad():
            expected = graph.module(*inputs)
        if isinstance(expected, torch.Tensor):
            expected = (expected,)
        feed = {name: x.numpy() for name, x in zip(graph.inputs, inputs, strict=True)}
        ours = dict(zip(graph.outputs, session.run(list(graph.outputs), feed), strict=True))
        theirs = {n: x.numpy() for n, x in zip(graph.outputs, expected, strict=True)}
        if "class_ids" in theirs:
            ours, theirs = _pair_detections(ours, theirs)
        for name in graph.outputs:
            errors[name] = max(errors[name], relative_error(ours[name], theirs[name]))
    return errors


def _pair_detections(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Put the rows of two lists of detections side by side.

    Rows without a detection have no meaning, and rows of nearly equal score may change places, so
    each real row of `theirs` meets the nearest row of `ours` that has its class.
    """
    wanted = np.flatnonzero(theirs["scores"] > 0)
    distance = np.abs(theirs["boxes"][wanted, None] - ours["boxes"][None]).sum(axis=2)
    distance += np.abs(theirs["scores"][wanted, None] - ours["scores"][None])
    distance[theirs["class_ids"][wanted, None] != ours["class_ids"][None]] = np.inf
    found = distance.argmin(axis=1) if len(wanted) else wanted
    rows = set(DetectionTensors._fields) - {"prototypes"}
    if (ours["scores"] > 0).sum() != len(wanted):
        ours = {**ours, "scores": ours["scores"][:0]}  # another number of detections: all wrong
        return ours, theirs
    return (
        {n: x[found] if n in rows else x for n, x in ours.items()},
        {n: x[wanted] if n in rows else x for n, x in theirs.items()},
    )


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest |actual - expected| over largest |expected|; infinite if the shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0))
    return difference / scale if scale else difference


def check_errors(errors: Mapping[str, float], *, graph: str) -> None:
    """Refuse an export that is not the network.

    Raises:
        BackendError: an output's error exceeds `TOLERANCE`.
    """
    wrong = {name: value for name, value in errors.items() if not value <= TOLERANCE}
    if wrong:
        listed = ", ".join(f"{name} {value:.2e}" for name, value in wrong.items())
        raise BackendError(
            f"The exported graph {graph!r} differs from torch by more than {TOLERANCE:g}: "
            f"{listed}. Nothing was written."
        )
