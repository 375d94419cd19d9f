"""From a camera image to decoded predictions: the parts of a deployed graph, in torch.

These modules are what the torch backend runs and what is exported; the rest (thresholds, NMS,
masks) follows in `yolact_ros.runtime`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolact_ros.config import ModelConfig
from yolact_ros.model.heads import MaskRescoring, Protonet
from yolact_ros.model.yolact import Yolact
from yolact_ros.priors import CENTRE_VARIANCE, SIZE_VARIANCE, neighbour_cells


class Predictions(NamedTuple):
    """What the network says of every prior of one image, before thresholds and NMS."""

    boxes: Tensor
    """(P, 4) x1 y1 x2 y2 as fractions of the image, not clipped."""
    class_scores: Tensor
    """(P, C) softmax over background and classes, without the background's column."""
    coefficients: Tensor
    """(P, K) in [-1, 1]."""
    prototypes: Tensor
    """(Hp, Wp, K), zero or more."""


def normalise(images: Tensor, config: ModelConfig) -> Tensor:
    """Turn BGR images into the network's input.

    Args:
        images: (B, H, W, 3) uint8 or float, BGR, 0..255.
        config: gives mean and standard deviation.

    Returns:
        (B, 3, H, W) float32 RGB.
    """
    mean = torch.tensor(config.pixel_mean, device=images.device)
    std = torch.tensor(config.pixel_std, device=images.device)
    return ((images.float() - mean) / std).flip(-1).permute(0, 3, 1, 2)


def decode_boxes(box_offsets: Tensor, priors: Tensor) -> Tensor:
    """`priors.decode_boxes` in torch: (..., 4) offsets to x1 y1 x2 y2 fractions."""
    centres = priors[..., :2] + box_offsets[..., :2] * CENTRE_VARIANCE * priors[..., 2:]
    sizes = priors[..., 2:] * torch.exp(box_offsets[..., 2:] * SIZE_VARIANCE)
    top_left = centres - sizes / 2
    return torch.cat([top_left, top_left + sizes], dim=-1)


class DetectTensors(NamedTuple):
    """What the graph `detect` gives for one image: the rest is computed where it is needed."""

    class_scores: Tensor
    """(P, C) softmax over background and classes, without the background's column."""
    head_features: Tensor
    """(cells, channels) of all cells of P3..P7: what `boxes_and_coefficients` takes."""
    p3: Tensor
    """(1, channels, h, w): what `prototypes` takes."""


class DetectGraph(nn.Module):
    """The graph `detect` of the form `on_demand`: class scores of every prior of one image.

    Boxes and coefficients of the few priors that matter follow in `BoxesAndCoefficientsGraph`,
    prototypes inside the boxes in `PrototypeGraph`: the same numbers for less arithmetic.
    """

    outputs = DetectTensors._fields

    def __init__(self, network: Yolact) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> DetectTensors:
        """Run on image (1, H, W, 3) uint8 BGR of the network's input size."""
        return self.finish(self.network.pyramid(normalise(image, self.network.config)))

    def finish(self, pyramid: tuple[Tensor, ...]) -> DetectTensors:
        """Classify what is in P3..P7 of one image."""
        head = self.network.head
        features = head.features(pyramid)
        return DetectTensors(
            class_scores=head.classify(features)[0].softmax(dim=-1)[:, 1:],
            head_features=torch.cat([level[0].flatten(1).t() for level in features]),
            p3=pyramid[0],
        )


class BoxesAndCoefficientsGraph(nn.Module):
    """The graph `boxes_and_coefficients`: those of all priors of chosen cells."""

    neighbours: Tensor
    outputs = ("boxes", "coefficients")

    def __init__(self, network: Yolact) -> None:
        super().__init__()
        self.network = network
        table = torch.from_numpy(neighbour_cells(network.config))
        self.register_buffer("neighbours", table, persistent=False)

    def forward(self, head_features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Predict and decode.

        Args:
            head_features: (all cells, channels) of `DetectTensors`.
            cells: (n,) int64: prior // A, with A priors of a cell.

        Returns:
            (n, A, 4) boxes and (n, A, K) coefficients, as in `Predictions`.
        """
        outside = torch.zeros(1, head_features.shape[1], device=head_features.device)
        patches = torch.cat([head_features, outside])[self.neighbours[cells]]
        box_offsets, coefficients = self.network.head.predict_cells(patches)
        priors = self.network.priors.reshape(-1, self.network.config.priors_per_cell, 4)
        return decode_boxes(box_offsets, priors[cells]), coefficients


class PrototypeGraph(nn.Module):
    """The graph `prototypes`: those of P3, or of a part of it."""

    outputs = ("prototypes",)

    def __init__(self, protonet: Protonet) -> None:
        super().__init__()
        self.protonet = protonet

    def forward(self, p3: Tensor) -> Tensor:
        """P3 (1, channels, h, w), any h and w, to (2h, 2w, K)."""
        prototypes: Tensor = self.protonet(p3)[0]
        return prototypes


class RescoreGraph(nn.Module):
    """The graph `rescore`: the predicted IoU of each mask for its own class."""

    outputs = ("mask_iou",)

    def __init__(self, mask_rescoring: MaskRescoring) -> None:
        super().__init__()
        self.mask_rescoring = mask_rescoring

    def forward(self, masks: Tensor, class_ids: Tensor) -> Tensor:
        """Masks (N, Hp, Wp) float, soft and cropped, and class_ids (N,) int64, to (N,) IoU."""
        predicted = self.mask_rescoring(masks[:, None])
        return predicted.gather(1, class_ids[:, None])[:, 0]
