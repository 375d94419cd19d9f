"""From a camera image to decoded predictions: the parts of a deployed graph, in torch.

These modules are what the torch backend runs and what is exported; the rest (thresholds, NMS,
masks) follows in `yolact_ros.runtime`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolact_ros.config import ModelConfig
from yolact_ros.model.heads import MaskRescoring
from yolact_ros.model.yolact import Yolact, YolactOutput
from yolact_ros.priors import CENTRE_VARIANCE, SIZE_VARIANCE


class Predictions(NamedTuple):
    """What the graph `detect` gives for one image, before thresholds and NMS on the host."""

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
    """`priors.decode_boxes` in torch: (..., P, 4) offsets to x1 y1 x2 y2 fractions."""
    centres = priors[:, :2] + box_offsets[..., :2] * CENTRE_VARIANCE * priors[:, 2:]
    sizes = priors[:, 2:] * torch.exp(box_offsets[..., 2:] * SIZE_VARIANCE)
    top_left = centres - sizes / 2
    return torch.cat([top_left, top_left + sizes], dim=-1)


class DetectGraph(nn.Module):
    """The graph `detect`: one uint8 image in, predictions of every prior out."""

    outputs = Predictions._fields

    def __init__(self, network: Yolact) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Predictions:
        """Run on image (1, H, W, 3) uint8 BGR of the network's input size."""
        return self.finish(self.network(normalise(image, self.network.config)))

    def finish(self, output: YolactOutput) -> Predictions:
        """Decode what the network says of one image."""
        return Predictions(
            boxes=decode_boxes(output.box_offsets[0], self.network.priors),
            class_scores=output.class_logits[0].softmax(dim=-1)[:, 1:],
            coefficients=output.coefficients[0],
            prototypes=output.prototypes[0],
        )


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
