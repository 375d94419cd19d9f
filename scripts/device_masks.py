"""Masks assembled on the device, timed against prototypes that the host makes masks of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from yolact_ros.config import PostprocessConfig
from yolact_ros.export.graphs import detection_graphs
from yolact_ros.export.half_precision import to_half
from yolact_ros.export.to_onnx import export_module
from yolact_ros.model.graphs.detect_with_nms import DetectWithNmsGraph, soft_masks
from yolact_ros.model.weights.checkpoint import load_model
from yolact_ros.runtime.backends import Backend
from yolact_ros.runtime.bundle_writer import write_bundle
from yolact_ros.runtime.masks import SoftMasks, assemble_masks, box_cells

MAX_DETECTIONS = 100


class DeviceMasksGraph(nn.Module):
    """The graph `detect` with masks instead of prototypes."""

    outputs = (*DetectWithNmsGraph.outputs, "masks")

    def __init__(self, detect: DetectWithNmsGraph) -> None:
        super().__init__()
        self.detect = detect

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, H, W, 3) uint8 BGR to the outputs; masks are (N, Hp, Wp) uint8, 255 times soft."""
        found = self.detect(image)
        masks = soft_masks(found.prototypes[None], found.coefficients[None], found.boxes[None])[0]
        # One cell of the prototypes, which a bundle has to have, costs nothing to copy.
        return (*found[:5], found.prototypes[:1, :1], (masks * 255).round().to(torch.uint8))


def export_device_masks(checkpoint: Path, folder: Path) -> None:
    """Write a bundle in half precision whose graph `detect` gives masks."""
    model = load_model(checkpoint)
    graph = detection_graphs(model, max_detections=MAX_DETECTIONS)[0]
    module = DeviceMasksGraph(graph.module)
    content = export_module(
        module, graph.example, inputs=graph.inputs, outputs=module.outputs, free=graph.free
    )
    write_bundle(
        folder,
        model.config,
        detect_form="with_nms",
        max_detections=MAX_DETECTIONS,
        graphs={"detect": to_half(content, half_borders=())},
        target="tensorrt",
        precision="fp16",
        source={},
        versions={},
    )


def time_masks(
    prototypes: Backend, masks: Backend, tensors: Sequence[np.ndarray], *, runs: int
) -> dict[str, float]:
    """Milliseconds from the image to soft masks on the host, both ways; how far these differ.

    Args:
        prototypes: of a bundle as it is.
        masks: of `export_device_masks`.
        tensors: prepared images, (1, H, W, 3) uint8.
        runs: of each way.
    """
    score = PostprocessConfig().score_threshold
    counts: list[int] = []

    def on_host(image: np.ndarray) -> SoftMasks:
        found = prototypes.run("detect", {"image": image})
        kept = found["scores"] > score
        counts.append(int(kept.sum()))
        planes = np.asarray(found["prototypes"], np.float32)
        return assemble_masks(planes, found["coefficients"][kept], found["boxes"][kept])

    def on_device(image: np.ndarray) -> SoftMasks:
        return crop(masks.run("detect", {"image": image}), score)

    ways: Mapping[str, Callable[[np.ndarray], SoftMasks]] = {
        "host": on_host,
        "device": on_device,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(runs):
        for name, way in ways.items():
            started = time.perf_counter()
            way(tensors[i % len(tensors)])
            times[name].append((time.perf_counter() - started) * 1e3)
    row = {name: median(values) for name, values in times.items()}
    pairs = zip(on_host(tensors[0]).dense(), on_device(tensors[0]).dense(), strict=True)
    differences = [float(np.abs(ours - theirs).max()) for ours, theirs in pairs]
    return {
        **row,
        "instances": float(np.mean(counts)),
        "largest_difference": max(differences, default=0.0),
    }


def crop(found: Mapping[str, np.ndarray], score: float) -> SoftMasks:
    """What `assemble_masks` gives, of masks that are there."""
    kept = found["scores"] > score
    size = found["masks"].shape[1:]
    cells = box_cells(found["boxes"][kept], size)
    values = tuple(
        mask[y1:y2, x1:x2] / np.float32(255)
        for mask, (x1, y1, x2, y2) in zip(found["masks"][kept], cells, strict=True)
    )
    return SoftMasks(cells, values, size)
