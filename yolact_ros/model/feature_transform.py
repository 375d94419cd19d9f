"""Implement the partial feature transform of YolactEdge (Liu et al. 2021, section 3.2).

Between keyframes the backbone stops at C3. The features of C4 and C5 are taken from the last
keyframe and warped by a learned flow. Facts: haotian-liu/yolact_edge `yolact.py`, `FlowNetMini`,
`SPA` and `Yolact.forward`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolact_ros.config import STRIDES, FlowConfig
from yolact_ros.model.fpn import resize_like

# Half the width or height of a map, in the unit of the predicted flow.
FLOW_PER_HALF_MAP = 8


class KeyframeFeatures(NamedTuple):
    """Holds a keyframe's features for later frames (official name: `moving_statistics`).

    Attributes:
        x4: (B, channels, h, w) sum of the top-down path at stride 16, before the 3x3 convolution.
        x5: (B, channels, h, w) the same at stride 32.
        lateral: (B, config.flow.channels, h, w) lateral of C3 at stride 8, reduced for the flow
            network once per keyframe (`FeatureTransform.reduce`); None without a flow network.
    """

    x4: Tensor
    x5: Tensor
    lateral: Tensor | None


class LevelTransform(NamedTuple):
    """Holds the transform of one level's features from the keyframe to the current frame.

    Attributes:
        flow: (B, 2, h, w) x and y from the current frame to the keyframe; see `flow_in_cells`.
        scale: (B, channels, h, w) factor of each warped value.
        bias: (B, channels, h, w) added after scaling.
    """

    flow: Tensor
    scale: Tensor
    bias: Tensor


def flow_in_cells(flow: Tensor) -> Tensor:
    """Convert predicted flow (B, 2, h, w) to displacements in cells of its map.

    A map of w cells spans w - 1 cells from the first centre to the last, which is
    `2 * FLOW_PER_HALF_MAP` in the unit of the flow; so enlarging a flow does not rescale it.
    """
    height, width = flow.shape[2:]
    unit = 2 * FLOW_PER_HALF_MAP
    return torch.stack([flow[:, 0] * ((width - 1) / unit), flow[:, 1] * ((height - 1) / unit)], 1)


def warp(features: Tensor, displacement: Tensor) -> Tensor:
    """Sample every cell from its position in the keyframe, bilinearly and with zeros outside.

    Args:
        features: (B, C, h, w) features of the keyframe.
        displacement: (B, 2, h, w) x and y in cells, from the current frame to the keyframe.

    Returns:
        (B, C, h, w).
    """
    height, width = features.shape[2:]
    x = torch.arange(width, dtype=features.dtype, device=features.device) + displacement[:, 0]
    row = torch.arange(height, dtype=features.dtype, device=features.device)
    y = row[:, None] + displacement[:, 1]
    # The reference has align_corners=True; this form is equal in cells and also holds for a map
    # of one cell.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(
        features, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _convolution(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1), nn.LeakyReLU(0.1, inplace=True)
    )


class TransformHead(nn.Module):
    """Predicts flow, scale and bias of one level."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.flow = nn.Conv2d(in_channels, 2, 3, padding=1, bias=False)
        self.scale = nn.Conv2d(in_channels, channels, 1)
        self.bias = nn.Conv2d(in_channels, channels, 1)

    def forward(self, x: Tensor) -> LevelTransform:
        """Predict the transform of a level from features (B, in_channels, h, w) of its size."""
        return LevelTransform(self.flow(x), self.scale(x), self.bias(x))


class FlowNet(nn.Module):
    """Downsamples in three stages from stride 8, and predicts transforms at strides 16 and 32.

    The reference also predicts flow at stride 8, for training only; that head is left out.
    """

    def __init__(self, config: FlowConfig, channels: int) -> None:
        super().__init__()
        wide = (config.channels, 2 * config.channels, 4 * config.channels)
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(before, now, stride=stride), _convolution(now, now))
            for before, now, stride in zip((wide[1], *wide[:2]), wide, (1, 2, 2), strict=True)
        )
        self.head5 = TransformHead(wide[2], channels)
        self.enlarge_features = nn.Conv2d(wide[2], wide[1], 3, padding=1, bias=False)
        self.enlarge_flow = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.head4 = TransformHead(2 * wide[1] + 2, channels)

    def forward(self, current: Tensor, key: Tensor) -> tuple[LevelTransform, LevelTransform]:
        """Compare two frames, each (B, config.channels, h, w) at stride 8.

        Returns:
            The transforms of x4 (stride 16) and x5 (stride 32).
        """
        x8 = self.stages[0](torch.cat([current, key], dim=1))
        x16 = self.stages[1](x8)
        x32 = self.stages[2](x16)
        transform5 = self.head5(x32)
        features = self.enlarge_features(resize_like(x32, x16))
        flow = self.enlarge_flow(resize_like(transform5.flow, x16))
        return self.head4(torch.cat([x16, features, flow], dim=1)), transform5


class Refinement(nn.Module):
    """Corrects warped features with the lateral of the current frame (reference: `SPA`)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer4 = _convolution(2 * channels, channels)
        self.layer5 = _convolution(2 * channels, channels)

    def forward(self, x4: Tensor, x5: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        """Correct x4 and x5, (B, channels, h, w), with the lateral at stride 8."""
        lateral4 = resize_like(lateral, x4)
        lateral5 = resize_like(lateral4, x5)  # from the reduced one, as in the reference
        return (
            x4 + self.layer4(torch.cat([x4, lateral4], dim=1)),
            x5 + self.layer5(torch.cat([x5, lateral5], dim=1)),
        )


class FeatureTransform(nn.Module):
    """Transforms x4 and x5 of a keyframe to the current frame."""

    def __init__(self, config: FlowConfig, channels: int) -> None:
        super().__init__()
        self.reduce = _convolution(channels, config.channels)
        self.flow_net = FlowNet(config, channels)
        self.refinement = Refinement(channels) if config.spa else None
        self.start_as_identity()

    def start_as_identity(self) -> None:
        """Initialise the transform so that it leaves the keyframe's features unchanged."""
        layers: list[nn.Module] = [self.flow_net.head4, self.flow_net.head5]
        if self.refinement is not None:
            layers.append(self.refinement)
        for layer in layers:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        for head in (self.flow_net.head4, self.flow_net.head5):
            nn.init.ones_(head.scale.get_parameter("bias"))

    def predict(
        self, lateral: Tensor, features: KeyframeFeatures
    ) -> tuple[LevelTransform, LevelTransform]:
        """Predict the transforms of x4 and x5 from the current and the keyframe's lateral.

        Args:
            lateral: (B, channels, h, w) lateral of the current frame.
            features: features of the keyframe.
        """
        return self.flow_net(self.reduce(lateral), features.lateral)

    def forward(self, lateral: Tensor, features: KeyframeFeatures) -> tuple[Tensor, Tensor]:
        """Transform the keyframe's features, without `refine`.

        Args:
            lateral: (B, channels, h, w) lateral of the current frame, at stride 8.
            features: features of the keyframe.

        Returns:
            x4 and x5 of the current frame.
        """
        transform4, transform5 = self.predict(lateral, features)
        return apply_transform(features.x4, transform4), apply_transform(features.x5, transform5)

    def refine(self, x4: Tensor, x5: Tensor, lateral: Tensor) -> tuple[Tensor, Tensor]:
        """Correct warped features with the current lateral, if the configuration has SPA."""
        if self.refinement is None:
            return x4, x5
        return self.refinement(x4, x5, lateral)


def apply_transform(features: Tensor, transform: LevelTransform) -> Tensor:
    """Warp features (B, C, h, w), then scale and shift each value."""
    return warp(features, flow_in_cells(transform.flow)) * transform.scale + transform.bias


def warp_by_flow(x4: Tensor, x5: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Warp features by a measured flow, without scaling or correction.

    Args:
        x4: (B, channels, h, w) features of the keyframe at stride 16.
        x5: features of the keyframe at stride 32.
        flow: (B, 2, h, w) x and y in pixels of the network's input, at the cells of x4, from the
            current frame to the keyframe.

    Returns:
        x4 and x5 of the current frame.
    """
    # Cell i of a map with stride s is centred on pixel s * i, so every second cell of x4 lies on
    # one of x5.
    coarse = F.avg_pool2d(flow, 3, stride=2, padding=1, count_include_pad=False)
    return warp(x4, flow / STRIDES[1]), warp(x5, coarse / STRIDES[2])
