"""Define MobileNetV2 of width 1 (Sandler et al. 2018), up to the layers that YolactEdge uses."""

from __future__ import annotations

from torch import Tensor, nn

from yolact_ros.model.backbones.efficientnet import inverted_residuals

# Index in the official checkpoint: expansion, channels, repeats, stride. C3 is the output of
# group 3, C4 of group 4 (not of 5, which has the same stride) and C5 of group 6. Group 7 and the
# 1x1 convolution after it are unused and left out.
MOBILENET_V2_GROUPS = {
    "1": (1, 16, 1, 1),
    "2": (6, 24, 2, 2),
    "3": (6, 32, 3, 2),
    "4": (6, 64, 4, 2),
    "5": (6, 96, 3, 1),
    "6": (6, 160, 3, 2),
}
MOBILENET_V2_CHANNELS = (32, 64, 160)  # C3, C4, C5


class MobileNetV2(nn.Module):
    """Consists of a stem and six groups of inverted residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()
        )
        self.groups = nn.ModuleDict()
        in_channels = 32
        for index, (expansion, channels, repeats, stride) in MOBILENET_V2_GROUPS.items():
            self.groups[index] = nn.Sequential(
                *inverted_residuals(
                    in_channels,
                    channels,
                    repeats,
                    kernel=3,
                    stride=stride,
                    expansion=expansion,
                    batch_norm=nn.BatchNorm2d,
                )
            )
            in_channels = channels

    def c3(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) normalised RGB to C3 at stride 8."""
        return self._groups(self.stem(x), "123")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) normalised RGB to C3, C4, C5 at strides 8, 16, 32."""
        c3 = self.c3(x)
        c4 = self._groups(c3, "4")
        return c3, c4, self._groups(c4, "56")

    def _groups(self, x: Tensor, indices: str) -> Tensor:
        for index in indices:
            x = self.groups[index](x)
        return x
