"""Hold the ground truth of an image for the losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Holds the instances and crowds of one image; N and M may be 0.

    Attributes:
        boxes: (N, 4) float32 x1 y1 x2 y2, fractions of the image.
        class_ids: (N,) int64, 0-based.
        masks: (N, H, W) uint8, 0 or 1, at the network's input size.
        crowd_boxes: (M, 4) float32 x1 y1 x2 y2, fractions of the image: regions that are neither
            object nor background.
        box_only: (N,) bool, instances whose mask is unknown and here fills the box.
    """

    boxes: Tensor
    class_ids: Tensor
    masks: Tensor
    crowd_boxes: Tensor
    box_only: Tensor

    def to(self, device: torch.device) -> Target:
        """Return the same target on another device."""
        return Target(*(tensor.to(device) for tensor in vars(self).values()))
