"""Define EfficientNet-Lite0: B0 without squeeze-and-excite, with ReLU6 (Tan and Le 2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Kernel, stride, expansion, channels and repeats of each stage.
LITE0_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
LITE0_TAPS = (4, 10, 15)  # blocks whose outputs are C3, C4, C5
LITE0_CHANNELS = (40, 112, 320)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    # The original's constants; PyTorch's momentum is 1 minus TensorFlow's 0.99.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class DepthwiseConv2d(nn.Conv2d):
    """Convolves depthwise, always in float32 on a CPU.

    There, PyTorch's gradient takes three to seven times as long in bfloat16 as in float32, which
    cost a third of a training step of EfficientNet-Lite0.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve like `nn.Conv2d`; the result has the type of the input."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(input.dtype)


class InvertedResidual(nn.Module):
    """Expands, filters depthwise and projects; adds a shortcut if the shape is unchanged."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        batch_norm: Callable[[int], nn.Module] = _batch_norm,
    ) -> None:
        super().__init__()
        channels = in_channels * expansion
        self.expand: nn.Module | None = None
        if expansion != 1:
            self.expand = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, bias=False), batch_norm(channels), nn.ReLU6()
            )
        self.depthwise = nn.Sequential(
            DepthwiseConv2d(
                channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
            ),
            batch_norm(channels),
            nn.ReLU6(),
        )
        self.project = nn.Sequential(
            nn.Conv2d(channels, out_channels, 1, bias=False), batch_norm(out_channels)
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.has_shortcut else y


def inverted_residuals(
    in_channels: int, channels: int, repeats: int, *, stride: int, **options: Any
) -> Iterator[InvertedResidual]:
    """Make the blocks of a stage, of which the first one has the stride."""
    for _ in range(repeats):
        yield InvertedResidual(in_channels, channels, stride=stride, **options)
        in_channels, stride = channels, 1


class EfficientNetLite0(nn.Module):
    """Consists of a stem and 16 blocks, without the classifier's head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), _batch_norm(32), nn.ReLU6()
        )
        self.blocks = nn.ModuleList()
        in_channels = 32
        for kernel, stride, expansion, channels, repeats in LITE0_STAGES:
            self.blocks += inverted_residuals(
                in_channels, channels, repeats, kernel=kernel, stride=stride, expansion=expansion
            )
            in_channels = channels

    def c3(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) normalised RGB to C3 at stride 8."""
        x = self.stem(x)
        for block in self.blocks[: LITE0_TAPS[0] + 1]:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) normalised RGB to C3, C4, C5 at strides 8, 16, 32."""
        taps = [self.c3(x)]
        for before, last in zip(LITE0_TAPS[:-1], LITE0_TAPS[1:], strict=True):
            x = taps[-1]
            for block in self.blocks[before + 1 : last + 1]:
                x = block(x)
            taps.append(x)
        c3, c4, c5 = taps
        return c3, c4, c5
