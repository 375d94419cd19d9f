"""Define the parts of a deployed graph in torch, from a camera image to decoded predictions.

The torch backend runs these modules, and the export traces them; thresholds, NMS and masks follow
in `yolact_ros.runtime`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolact_ros.config import ModelConfig
from yolact_ros.model.boxes import decode_boxes
from yolact_ros.model.heads import MaskRescoring, Protonet
from yolact_ros.model.yolact import Yolact
from yolact_ros.priors import neighbour_cells


class Predictions(NamedTuple):
    """Holds predictions for every prior of one image, before thresholds and NMS.

    Attributes:
        boxes: (P, 4) x1 y1 x2 y2 as fractions of the image, not clipped.
        class_scores: (P, C) softmax over background and classes, without the column of the
            background.
        coefficients: (P, K) in [-1, 1].
        prototypes: (Hp, Wp, K), non-negative.
    """

    boxes: Tensor
    class_scores: Tensor
    coefficients: Tensor
    prototypes: Tensor


def normalise(images: Tensor, config: ModelConfig) -> Tensor:
    """Convert BGR images to the input of the network.

    Args:
        images: (B, H, W, 3) uint8 or float, BGR, 0..255.
        config: configuration with mean and standard deviation.

    Returns:
        (B, 3, H, W) float32 RGB.
    """
    # Planes first: on pixels with their channels side by side, ONNX Runtime takes longer.
    planes = images.float().permute(0, 3, 1, 2).flip(1)
    mean, std = (
        torch.tensor(values[::-1], device=images.device).reshape(3, 1, 1)
        for values in (config.pixel_mean, config.pixel_std)
    )
    return (planes - mean) / std


class DetectTensors(NamedTuple):
    """Holds the outputs of the graph `detect` for one image; the rest is computed on demand.

    Attributes:
        class_scores: (P, C) softmax over background and classes, without the column of the
            background.
        head_features: (cells, channels) of all cells of P3..P7; input of `boxes_and_coefficients`.
        p3: (1, channels, h, w); input of `prototypes`.
    """

    class_scores: Tensor
    head_features: Tensor
    p3: Tensor


class DetectGraph(nn.Module):
    """Implements `detect` of the form `on_demand`: class scores of every prior of one image.

    `BoxesAndCoefficientsGraph` computes boxes and coefficients of the few priors that matter, and
    `PrototypeGraph` the prototypes inside the boxes: the same numbers with less arithmetic.
    """

    outputs = DetectTensors._fields

    def __init__(self, network: Yolact) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> DetectTensors:
        """Run on image (1, H, W, 3) uint8 BGR of the network's input size."""
        return self.finish(self.network.pyramid(normalise(image, self.network.config)))

    def finish(self, pyramid: tuple[Tensor, ...]) -> DetectTensors:
        """Classify the priors from P3..P7 of one image."""
        head = self.network.head
        features = head.features(pyramid)
        return DetectTensors(
            class_scores=head.classify(features)[0].softmax(dim=-1)[:, 1:],
            head_features=torch.cat([level[0].flatten(1).t() for level in features]),
            p3=pyramid[0],
        )


class BoxesAndCoefficientsGraph(nn.Module):
    """Implements the graph `boxes_and_coefficients`, for all priors of selected cells."""

    neighbours: Tensor
    outputs = ("boxes", "coefficients")

    def __init__(self, network: Yolact) -> None:
        super().__init__()
        self.network = network
        table = torch.from_numpy(neighbour_cells(network.config))
        self.register_buffer("neighbours", table, persistent=False)

    def forward(self, head_features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Predict and decode the priors of some cells.

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
    """Implements the graph `prototypes`, for P3 or a part of it."""

    outputs = ("prototypes",)

    def __init__(self, protonet: Protonet) -> None:
        super().__init__()
        self.protonet = protonet

    def forward(self, p3: Tensor) -> Tensor:
        """Compute (2h, 2w, K) from P3 (1, channels, h, w) of any h and w."""
        prototypes: Tensor = self.protonet(p3)[0]
        return prototypes


class RescoreGraph(nn.Module):
    """Implements the graph `rescore`, which predicts the IoU of each mask for its own class."""

    outputs = ("mask_iou",)

    def __init__(self, mask_rescoring: MaskRescoring) -> None:
        super().__init__()
        self.mask_rescoring = mask_rescoring

    def forward(self, masks: Tensor, class_ids: Tensor) -> Tensor:
        """Predict the IoU (N,) of soft cropped masks (N, Hp, Wp) with class_ids (N,) int64."""
        predicted = self.mask_rescoring(masks[:, None])
        return predicted.gather(1, class_ids[:, None])[:, 0]
