"""Compute the losses of YolactEdge's partial feature transform (Liu et al. 2021, section 3.2).

The features of the keyframe are transformed as in inference; flow and transformed features are
compared with the true flow and the features of the full pass. Facts: haotian-liu/yolact_edge
`train.py` and `layers/modules/multibox_loss.py`. One difference: there, a wrong index compares the
features of P5 after the 3x3 convolution of P3; here, each level uses its own convolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from yolact_ros.config import STRIDES
from yolact_ros.model.feature_transform import (
    FLOW_PER_HALF_MAP,
    KeyframeFeatures,
    LevelTransform,
    apply_transform,
)
from yolact_ros.model.yolact import Yolact, YolactOutput

TRANSFORM_LOSSES = ("flow", "matching")


class MovedPass(NamedTuple):
    """Holds the results of a pass over frames between keyframes, with the inputs of its losses.

    Attributes:
        moved: x4 and x5 (B, channels, h, w), inputs of the 3x3 convolutions.
        full: x4 and x5 computed from the frames themselves, without gradient.
        transforms: transforms of x4 and x5.
    """

    output: YolactOutput
    moved: tuple[Tensor, Tensor]
    full: tuple[Tensor, Tensor]
    transforms: tuple[LevelTransform, LevelTransform]


def moved_pass(network: Yolact, images: Tensor, keyframes: Tensor) -> MovedPass:
    """Run a network on frames with the features of their keyframes.

    Args:
        network: network with a feature transform.
        images: (B, 3, H, W) normalised frames.
        keyframes: (B, 3, H, W) normalised keyframes of the frames.

    Raises:
        ValueError: the network has no feature transform.
    """
    transform = network.feature_transform
    if transform is None:
        raise ValueError(f"Model {network.config.name!r} has no feature transform to train.")
    with torch.no_grad():
        c3, c4, c5 = network.backbone(keyframes)
        x4, x5 = network.fpn.merge_deep(c4, c5)
        key_lateral = network.fpn.lateral(c3)
        _, c4, c5 = network.backbone(images)
        full = network.fpn.merge_deep(c4, c5)
    features = KeyframeFeatures(x4, x5, transform.reduce(key_lateral))
    lateral = network.fpn.lateral(network.backbone.c3(images))
    transforms = transform.predict(lateral, features)
    x4 = apply_transform(features.x4, transforms[0])
    x5 = apply_transform(features.x5, transforms[1])
    x3 = network.fpn.merge_lateral(x4, lateral)
    x4, x5 = transform.refine(x4, x5, lateral)
    return MovedPass(network.predict(network.fpn.predict(x3, x4, x5)), (x4, x5), full, transforms)


def flow_loss(transforms: tuple[LevelTransform, LevelTransform], flow: Tensor) -> Tensor:
    """Sum the mean distance between predicted and true flow, in the flow's unit, over both levels.

    Args:
        transforms: transforms of x4 and x5.
        flow: (B, 2, h4, w4) true flow in pixels of the network's input, NaN where unknown.
    """
    total = flow.new_zeros(())
    levels = ((transforms[0], flow, STRIDES[1]), (transforms[1], flow[..., ::2, ::2], STRIDES[2]))
    for transform, pixels, stride in levels:
        expected = flow_in_units(pixels / stride)
        known = expected.isfinite().all(dim=1)
        # NaN times zero is NaN, so unknown cells must not enter the difference.
        difference = transform.flow.float() - torch.where(known[:, None], expected, 0.0)
        distance = (difference.square().sum(dim=1) + 1e-12).sqrt()
        total = total + (distance * known).sum() / known.sum().clamp(min=1)
    return total


def flow_in_units(cells: Tensor) -> Tensor:
    """Convert displacements (B, 2, h, w) in cells to the flow's unit, inverse to `flow_in_cells`.

    The reference divides by the size of the image in pixels, whereas its warp has one cell less.
    """
    height, width = cells.shape[2:]
    unit = 2 * FLOW_PER_HALF_MAP
    x = cells[:, 0] * (unit / max(width - 1, 1))
    return torch.stack([x, cells[:, 1] * (unit / max(height - 1, 1))], dim=1)


def matching_loss(
    network: Yolact, moved: tuple[Tensor, Tensor], full: tuple[Tensor, Tensor]
) -> Tensor:
    """Average 1 - cosine of transformed and full features, before and after the 3x3 convolution.

    Args:
        network: network with the convolutions of P4 and P5.
        moved: transformed x4 and x5, (B, channels, h, w).
        full: x4 and x5 of the full pass.
    """
    pairs = list(zip(moved, full, strict=True))
    for layer, ours, theirs in zip(network.fpn.predict_layers[1:], moved, full, strict=True):
        pairs.append((F.relu(layer(ours)), F.relu(layer(theirs)).detach()))
    distances = [
        (1 - F.cosine_similarity(ours.float(), theirs.float(), dim=1)).mean()
        for ours, theirs in pairs
    ]
    return torch.stack(distances).mean()
