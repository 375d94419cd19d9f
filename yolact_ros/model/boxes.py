"""Decode box offsets in torch, and compute intersection over union."""

from __future__ import annotations

import torch
from torch import Tensor

from yolact_ros.priors import CENTRE_VARIANCE, SIZE_VARIANCE


def decode_boxes(box_offsets: Tensor, priors: Tensor) -> Tensor:
    """Convert offsets to boxes, with the reference's order of operations (`box_utils.py::decode`).

    Args:
        box_offsets: (..., 4) float32 output of the network.
        priors: (..., 4) float32 centre form, fractions of the image.

    Returns:
        (..., 4) float32 x1 y1 x2 y2 as fractions of the image, not clipped.
    """
    centres = priors[..., :2] + box_offsets[..., :2] * CENTRE_VARIANCE * priors[..., 2:]
    sizes = priors[..., 2:] * torch.exp(box_offsets[..., 2:] * SIZE_VARIANCE)
    top_left = centres - sizes / 2
    return torch.cat([top_left, top_left + sizes], dim=-1)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the IoU of every box (..., n, 4) with every box (..., m, 4): (..., n, m).

    Boxes are x1 y1 x2 y2. There is no epsilon: 0/0 is NaN.
    """
    intersection = intersections(first, second)
    areas = box_areas(first)[..., :, None] + box_areas(second)[..., None, :]
    return intersection / (areas - intersection)


def intersections(first: Tensor, second: Tensor) -> Tensor:
    """Compute the areas (..., n, m) that boxes (..., n, 4) and (..., m, 4) have in common."""
    # One plane per coordinate: strided slices of the last dimension would be copied for each pair.
    one, other = first.unbind(dim=-1), second.unbind(dim=-1)

    def overlap(low: int, high: int) -> Tensor:
        start = torch.maximum(one[low][..., :, None], other[low][..., None, :])
        end = torch.minimum(one[high][..., :, None], other[high][..., None, :])
        return (end - start).clamp(min=0)

    return overlap(0, 2) * overlap(1, 3)


def box_areas(boxes: Tensor) -> Tensor:
    """Compute the areas of boxes (..., 4) x1 y1 x2 y2."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return (x2 - x1) * (y2 - y1)
