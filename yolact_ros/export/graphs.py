"""What is exported: the graphs of a bundle, with the names of their inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from yolact_ros.config import PostprocessConfig
from yolact_ros.model.detection_graph import DetectionGraph, DetectionTensors
from yolact_ros.model.inference import DetectGraph, Predictions, RescoreGraph
from yolact_ros.model.yolact import Yolact

# (prior, class) pairs below this never leave a graph with NMS inside (reference:
# `nms_conf_thresh`); a higher threshold can be set at run time.
GRAPH_SCORE_THRESHOLD = 0.05


@dataclass(frozen=True)
class Graph:
    """One graph: a module, arguments that fix its shapes, and the names at its border."""

    name: str
    module: nn.Module
    example: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free_batch: bool = False


def host_graphs(model: Yolact) -> list[Graph]:
    """Graphs of a bundle whose thresholds and NMS run on the host (the faster way on a CPU)."""
    graphs = [
        Graph(
            "detect", DetectGraph(model), (example_image(model),), ("image",), Predictions._fields
        )
    ]
    if model.mask_rescoring is not None:
        masks = torch.rand(2, *model.config.prototype_size)
        graphs.append(
            Graph(
                "rescore",
                RescoreGraph(model.mask_rescoring),
                (masks, torch.zeros(2, dtype=torch.int64)),
                ("masks", "class_ids"),
                ("mask_iou",),
                free_batch=True,
            )
        )
    return graphs


def detection_graphs(model: Yolact, *, max_detections: int) -> list[Graph]:
    """The one graph of a bundle that goes from the image to finished detections."""
    config = PostprocessConfig(
        score_threshold=GRAPH_SCORE_THRESHOLD, max_detections=max_detections
    )
    return [
        Graph(
            "detect",
            DetectionGraph(model, config),
            (example_image(model),),
            ("image",),
            DetectionTensors._fields,
        )
    ]


def example_image(model: Yolact, *, seed: int = 0) -> torch.Tensor:
    """A (1, H, W, 3) uint8 picture of smooth random colours with noise on it.

    Pure noise would leave the deeper levels of a network almost constant.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = model.config.input_size
    coarse = torch.rand(1, 3, 7, 7, generator=generator) * 255
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = torch.randn(1, 3, height, width, generator=generator) * 12
    return (smooth + noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
