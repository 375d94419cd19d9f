"""Define DarkNet-53, the backbone of YOLOv3 (Redmon and Farhadi 2018)."""

from __future__ import annotations

from torch import Tensor, nn

DARKNET53_UNITS = (1, 2, 8, 8, 4)  # residual units of the stages at strides 2, 4, 8, 16, 32
DARKNET53_CHANNELS = (256, 512, 1024)  # C3, C4, C5


def _convolution(
    in_channels: int, out_channels: int, *, kernel: int, stride: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(0.1, inplace=True),
    )


class ResidualUnit(nn.Module):
    """Applies 1x1 to half the channels, 3x3 back, and a shortcut without activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, channels // 2, kernel=1)
        self.conv2 = _convolution(channels // 2, channels, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.conv2(self.conv1(x)) + x


class DarkNet53(nn.Module):
    """Consists of a stem and five stages, each of which starts by halving the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 32, kernel=3)
        self.layers = nn.ModuleList()
        for stage, num_units in enumerate(DARKNET53_UNITS):
            channels = 64 * 2**stage
            self.layers.append(
                nn.Sequential(
                    _convolution(channels // 2, channels, kernel=3, stride=2),
                    *(ResidualUnit(channels) for _ in range(num_units)),
                )
            )

    def c3(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) RGB in [0, 1] to C3 at stride 8."""
        x = self.stem(x)
        for stage in self.layers[:3]:
            x = stage(x)
        return x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) RGB in [0, 1] to C3, C4, C5 at strides 8, 16, 32."""
        c3 = self.c3(x)
        c4 = self.layers[3](c3)
        return c3, c4, self.layers[4](c4)
