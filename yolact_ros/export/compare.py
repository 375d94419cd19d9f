"""Compare exported graphs on ONNX Runtime with their torch modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from yolact_ros.errors import BackendError
from yolact_ros.export.graphs import Graph
from yolact_ros.model.graphs.detect_with_nms import MaskTensors

# Largest |difference| over largest |value| of a tensor. A different float32 summation order gives
# about 1e-6 per layer; a wrong operator gives far more.
TOLERANCE = 1e-3

# Outputs with one row per detection.
ROWS = set(MaskTensors._fields)


# In half precision, a score near the graph's threshold may fall on the other side of it, so only
# rows with higher scores are compared, and one in ten may be missing.
HALF_SCORE = 0.1
HALF_MISSING = 0.1

# Half precision changes the outputs of a trained network by about 1 %, and single rows of a
# network with random weights by 20 %. A wrong graph gives 1 or more, or NaN.
HALF_TOLERANCE = 0.5


def relative_errors(
    graph: Graph, content: bytes, *, images: int = 2, half: bool = False
) -> dict[str, float]:
    """Run both on the same inputs and compare the outputs.

    Args:
        graph: graph with its torch module, in evaluation mode.
        content: exported ONNX model.
        images: number of different inputs.
        half: whether the model computes in half precision; see `HALF_SCORE`.

    Returns:
        Largest relative error of each output (see `TOLERANCE`).

    Raises:
        BackendError: ONNX Runtime rejects the model.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime does not export its exception types
        raise BackendError(f"ONNX Runtime rejects the graph {graph.name!r}: {error}") from error
    errors = dict.fromkeys(graph.outputs, 0.0)
    for seed in range(images):
        inputs = graph.draw(seed)
        with torch.no_grad(), _StableTopK():
            expected = graph.module(*inputs)
        if isinstance(expected, torch.Tensor):
            expected = (expected,)
        feed = {name: x.numpy() for name, x in zip(graph.inputs, inputs, strict=True)}
        for taken in session.get_inputs():
            if taken.type == "tensor(float16)":
                feed[taken.name] = feed[taken.name].astype(np.float16)
        ours = dict(zip(graph.outputs, session.run(list(graph.outputs), feed), strict=True))
        theirs = {n: x.numpy() for n, x in zip(graph.outputs, expected, strict=True)}
        for name in graph.outputs:
            if "class_ids" not in theirs or name not in ROWS:
                errors[name] = max(errors[name], relative_error(ours[name], theirs[name]))
        for image in _split_detections(ours, theirs) if "class_ids" in theirs else ():
            pairs = _pair_detections(*image, half=half)
            for name, pair in zip(sorted(ROWS & ours.keys()), pairs, strict=True):
                errors[name] = max(errors[name], relative_error(*pair))
    return errors


class _StableTopK(TorchFunctionMode):
    """Makes `topk` prefer the lower index among equal values, as the operator TopK of ONNX does.

    Scores of a network with random weights all lie within 1e-4, so some are equal, and NMS then
    keeps another box.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not torch.Tensor.topk:
            return func(*args, **(kwargs or {}))
        return _stable_topk(*args, **(kwargs or {}))


def _stable_topk(values: torch.Tensor, k: int, dim: int = -1) -> Any:
    best, indices = values.sort(dim=dim, descending=True, stable=True)
    return torch.return_types.topk((best.narrow(dim, 0, k), indices.narrow(dim, 0, k)))


def _split_detections(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Split the outputs into the detections of each image."""
    if theirs["scores"].ndim == 1:
        return [(ours, theirs)]
    rows = ROWS & ours.keys()
    return [
        ({n: ours[n][i] for n in rows}, {n: theirs[n][i] for n in rows})
        for i in range(len(theirs["scores"]))
    ]


def _pair_detections(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], *, half: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Match the rows of two lists of detections.

    Rows without a detection are ignored, and rows of nearly equal score may be swapped, so each
    real row of `theirs` is compared with the nearest row of `ours` of the same class.

    Returns:
        Ours and theirs of each of `ROWS`, sorted by name; of different shapes, which counts as an
        infinite error, if the numbers of detections differ.
    """
    rows = sorted(ROWS & ours.keys())
    wanted = np.flatnonzero(theirs["scores"] > (HALF_SCORE if half else 0))
    distance = np.abs(theirs["boxes"][wanted, None] - ours["boxes"][None]).sum(axis=2)
    distance += np.abs(theirs["scores"][wanted, None] - ours["scores"][None])
    distance[theirs["class_ids"][wanted, None] != ours["class_ids"][None]] = np.inf
    found = distance.argmin(axis=1) if len(wanted) else wanted
    if half:
        near = np.take_along_axis(distance, found[:, None], axis=1)[:, 0] < 0.1
        # Another prior with nearly the same box and score may have been selected.
        masks = np.abs(theirs["coefficients"][wanted] - ours["coefficients"][found])
        near &= masks.max(axis=1, initial=0.0) < 0.5
        if (~near).sum() > np.ceil(HALF_MISSING * len(near)):
            return [(ours[name][:0], theirs[name]) for name in rows]
        wanted, found = wanted[near], found[near]
    elif (ours["scores"] > 0).sum() != len(wanted):
        return [(ours[name][:0], theirs[name]) for name in rows]
    return [(ours[name][found], theirs[name][wanted]) for name in rows]


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Divide the largest |actual - expected| by the largest |expected|; infinite if shapes differ.

    Eight-bit integers were rounded, so a difference of 1 does not count.
    """
    if actual.shape != expected.shape:
        return float("inf")
    scale = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0))
    if expected.dtype == np.uint8:
        difference = max(0.0, difference - 1)
    return difference / scale if scale else difference


def check_errors(errors: Mapping[str, float], *, graph: str, tolerance: float = TOLERANCE) -> None:
    """Reject an export that differs from the network.

    Raises:
        BackendError: the error of an output exceeds the tolerance.
    """
    wrong = {name: value for name, value in errors.items() if not value <= tolerance}
    if wrong:
        listed = ", ".join(f"{name} {value:.2e}" for name, value in wrong.items())
        raise BackendError(
            f"The exported graph {graph!r} differs from torch by more than {tolerance:g}: "
            f"{listed}. Nothing was written."
        )
