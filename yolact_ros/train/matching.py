"""Match instances to priors as SSD does (dbolya/yolact `layers/box_utils.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from yolact_ros.model.boxes import box_areas, box_iou, intersections
from yolact_ros.priors import CENTRE_VARIANCE, SIZE_VARIANCE

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
CROWD_OVERLAP = 0.7

NEUTRAL = -1
BACKGROUND = 0


class Matches(NamedTuple):
    """Holds the training targets of the priors of one image.

    Attributes:
        labels: (P,) int64: class id + 1, 0 for background, -1 for neutral.
        instances: (P,) int64: instance with the largest IoU, or the one forced on the prior; zeros
            without instances. Meaningful only where `labels` is above 0.
    """

    labels: Tensor
    instances: Tensor


def match_priors(
    priors: Tensor, boxes: Tensor, *, class_ids: Tensor, crowd_boxes: Tensor
) -> Matches:
    """Match the instances of one image to priors.

    A prior gets the instance with the largest IoU: it is positive from an IoU of 0.5, background
    below 0.4, and neutral in between. Every instance also gets one prior regardless of their IoU,
    in descending order of IoU. Background priors with more than 0.7 of their area inside a crowd
    become neutral.

    Args:
        priors: (P, 4) float32, centre form, fractions of the image.
        boxes: (N, 4) float32 x1 y1 x2 y2, fractions of the image.
        class_ids: (N,) int64.
        crowd_boxes: (M, 4) float32 x1 y1 x2 y2, fractions of the image.
    """
    corners = corner_form(priors)
    if len(boxes):
        overlaps = box_iou(boxes, corners)  # (N, P)
        best_overlap, instances = overlaps.max(dim=0)
        for _ in range(len(boxes)):
            flat = int(overlaps.argmax())
            instance, prior = divmod(flat, overlaps.shape[1])
            best_overlap[prior] = 2.0  # above any threshold
            instances[prior] = instance
            overlaps[:, prior] = -1
            overlaps[instance, :] = -1
        labels = class_ids[instances] + 1
        labels[best_overlap < POSITIVE_IOU] = NEUTRAL
        labels[best_overlap < NEGATIVE_IOU] = BACKGROUND
    else:
        labels = priors.new_full((len(priors),), BACKGROUND, dtype=torch.int64)
        instances = torch.zeros_like(labels)
    if len(crowd_boxes):
        covered = intersections(crowd_boxes, corners).amax(dim=0) / box_areas(corners)
        labels[(labels <= BACKGROUND) & (covered > CROWD_OVERLAP)] = NEUTRAL
    return Matches(labels, instances)


def corner_form(boxes_cxcywh: Tensor) -> Tensor:
    """Convert (N, 4) centre x, centre y, width, height to x1 y1 x2 y2."""
    half = boxes_cxcywh[:, 2:] / 2
    return torch.cat([boxes_cxcywh[:, :2] - half, boxes_cxcywh[:, :2] + half], dim=1)


def encode_offsets(boxes: Tensor, priors: Tensor) -> Tensor:
    """Convert boxes to offsets, the inverse of `model.boxes.decode_boxes`.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 of positive size, fractions of the image.
        priors: (N, 4), centre form.

    Returns:
        (N, 4).
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - priors[:, :2]
    centres = centres / (CENTRE_VARIANCE * priors[:, 2:])
    sizes = torch.log((boxes[:, 2:] - boxes[:, :2]) / priors[:, 2:]) / SIZE_VARIANCE
    return torch.cat([centres, sizes], dim=1)


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
