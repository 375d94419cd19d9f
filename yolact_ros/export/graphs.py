"""Define the graphs of a bundle, with the names of their inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from yolact_ros.config import PostprocessConfig
from yolact_ros.model.graphs.detect import (
    BoxesAndCoefficientsGraph,
    DetectGraph,
    PrototypeGraph,
    RescoreGraph,
    normalise,
)
from yolact_ros.model.graphs.detect_with_nms import DetectWithNmsGraph
from yolact_ros.model.graphs.keyframes import (
    KeyframeGraph,
    NonKeyframeFlowGraph,
    NonKeyframeGraph,
    features_of,
)
from yolact_ros.model.yolact import Yolact

# Graphs with NMS drop (prior, class) pairs below this score (reference: `nms_conf_thresh`); a
# higher threshold can be set at run time.
GRAPH_SCORE_THRESHOLD = 0.05


@dataclass(frozen=True)
class Graph:
    """Describes one graph: a module with the names of its inputs and outputs.

    Attributes:
        draw: creates arguments of the module from a seed; their shapes become those of the graph.
        free: names of the free dimensions of each argument, where equal names mean equal sizes;
            empty for none.
    """

    name: str
    module: nn.Module
    draw: Callable[[int], tuple[Any, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: tuple[Mapping[int, str], ...] = ()

    @property
    def example(self) -> tuple[Any, ...]:
        """Return example arguments, which determine the shapes."""
        return self.draw(0)


def host_graphs(model: Yolact) -> list[Graph]:
    """Return the graphs of a bundle with NMS on the host, which is faster on a CPU."""
    detect, boxes = DetectGraph(model), BoxesAndCoefficientsGraph(model)
    prototypes = PrototypeGraph(model.protonet)
    graphs = [
        Graph("detect", detect, partial(_images, model, 1), ("image",), detect.outputs),
        Graph(
            "boxes_and_coefficients",
            boxes,
            partial(_head_features, model),
            ("head_features", "cells"),
            boxes.outputs,
            free=({}, {0: "chosen"}),
        ),
        Graph(
            "prototypes",
            prototypes,
            partial(_part_of_p3, model),
            ("p3",),
            prototypes.outputs,
            free=({2: "rows", 3: "columns"},),
        ),
    ]
    if model.mask_rescoring is not None:
        rescore = RescoreGraph(model.mask_rescoring)
        draw = partial(_masks, model.config.prototype_size, model.config.num_classes)
        graphs.append(
            Graph(
                "rescore",
                rescore,
                draw,
                ("masks", "class_ids"),
                rescore.outputs,
                free=({0: "masks"}, {0: "masks"}),
            )
        )
    return graphs


def detection_graphs(
    model: Yolact,
    *,
    max_detections: int,
    batch: int = 1,
    masks: bool = False,
    top_k: int = PostprocessConfig.top_k,
) -> list[Graph]:
    """Return the single graph from the image to finished detections.

    Args:
        model: network in evaluation mode.
        max_detections: number of rows of the result.
        batch: images per run; if above 1, it is the first dimension of every output.
        masks: whether the outputs include masks instead of prototypes.
        top_k: candidates per class for NMS.
    """
    config = PostprocessConfig(
        score_threshold=GRAPH_SCORE_THRESHOLD, max_detections=max_detections, top_k=top_k
    )
    detect = DetectWithNmsGraph(model, config, masks=masks)
    draw = partial(_images, model, batch)
    return [Graph("detect", detect, draw, ("image",), detect.outputs)]


def video_graphs(graphs: list[Graph], *, batch: int = 1) -> list[Graph]:
    """Replace the graph `detect` with the graphs for video, and keep all others.

    `keyframe` also serves single images. Networks with a learned flow have `non_keyframe`; every
    network has `non_keyframe_flow`. `batch` is that of `detect`.
    """
    (detect,) = (graph.module for graph in graphs if graph.name == "detect")
    assert isinstance(detect, (DetectGraph, DetectWithNmsGraph))
    model, features = detect.network, features_of(detect)
    keyframe = KeyframeGraph(detect)
    draw = partial(_images, model, batch)
    video = [Graph("keyframe", keyframe, draw, ("image",), keyframe.outputs)]
    moving: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
        "non_keyframe_flow": (NonKeyframeFlowGraph(detect), ("x4", "x5", "flow"))
    }
    if model.feature_transform is not None:
        moving["non_keyframe"] = NonKeyframeGraph(detect), features
    for name, (module, others) in moving.items():
        after = partial(_images_after_keyframes, model, batch, others)
        video.append(Graph(name, module, after, ("image", *others), detect.outputs))
    return video + [graph for graph in graphs if graph.name != "detect"]


def example_image(model: Yolact, *, seed: int = 0) -> torch.Tensor:
    """Return a (1, H, W, 3) uint8 image of smooth random colours with noise.

    With pure noise, the deeper levels of a network would be almost constant.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = model.config.input_size
    coarse = torch.rand(1, 3, 7, 7, generator=generator) * 255
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = torch.randn(1, 3, height, width, generator=generator) * 12
    return (smooth + noise).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _images(model: Yolact, batch: int, seed: int) -> tuple[torch.Tensor]:
    return (torch.cat([example_image(model, seed=seed + 100 * i) for i in range(batch)]),)


def _masks(
    size: tuple[int, int], num_classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(2, *size, generator=generator)
    return masks, torch.randint(0, num_classes, (2,), generator=generator)


@torch.no_grad()
def _head_features(model: Yolact, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the head features of an example image, and choose a few cells at random."""
    _, features, _ = DetectGraph(model)(example_image(model, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    return features, torch.randint(0, len(features), (7 + seed,), generator=generator)


@torch.no_grad()
def _part_of_p3(model: Yolact, seed: int) -> tuple[torch.Tensor]:
    """Return P3 of an example image without its last rows and columns, depending on the seed."""
    _, _, p3 = DetectGraph(model)(example_image(model, seed=seed))
    rows, columns = p3.shape[2:]
    return (p3[:, :, : max(2, rows - seed), : max(2, columns - 2 * seed)].contiguous(),)


@torch.no_grad()
def _images_after_keyframes(
    model: Yolact, batch: int, others: tuple[str, ...], seed: int
) -> tuple[torch.Tensor, ...]:
    """Return images with the other inputs of a graph: features of other images, and flows."""
    (keyframes,) = _images(model, batch, 1000 + seed)
    _, features = model.keyframe(normalise(keyframes, model.config))
    generator = torch.Generator().manual_seed(seed)
    pixels = 20 * torch.randn(batch, 2, *model.config.feature_sizes[1], generator=generator)
    tensors = {**features._asdict(), "flow": pixels}
    return (*_images(model, batch, seed), *(tensors[name] for name in others))
