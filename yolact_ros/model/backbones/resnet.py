"""Define ResNet-50, -101 and -152 (He et al. 2016) with YOLACT++'s deformable blocks.

The 3x3 convolution has the stride of 2, as in torchvision; entry names are the official ones.
"""

from __future__ import annotations

from torch import Tensor, nn

from yolact_ros.config import BackboneConfig
from yolact_ros.model.deform_conv import DeformConv2d

RESNET_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
RESNET_CHANNELS = (512, 1024, 2048)  # C3, C4, C5


def is_deformable(block: int, num_blocks: int, *, num_deformable: int, interval: int) -> bool:
    """Return whether a block of a stage is deformable (reference: `backbone.py::_make_layer`).

    The interval does not apply to the first block, which is deformable only if all blocks may be.
    """
    if block == 0:
        return num_deformable >= num_blocks
    return block + num_deformable >= num_blocks and block % interval == 0


class Bottleneck(nn.Module):
    """Applies 1x1, 3x3 and 1x1 convolutions with batch normalisation, and a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, deformable: bool) -> None:
        super().__init__()
        out_channels = 4 * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2: nn.Module
        if deformable:
            self.conv2 = DeformConv2d(channels, channels, stride=stride)
        else:
            self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 channels, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """Consists of a stem and stages C2..C5."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.ModuleList()
        in_channels = 64
        for stage, num_blocks in enumerate(RESNET_BLOCKS[config.name]):
            channels = 64 * 2**stage
            blocks = []
            for block in range(num_blocks):
                deformable = is_deformable(
                    block,
                    num_blocks,
                    num_deformable=config.deformable_blocks[stage],
                    interval=config.deformable_interval,
                )
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(
                    Bottleneck(in_channels, channels, stride=stride, deformable=deformable)
                )
                in_channels = 4 * channels
            self.layers.append(nn.Sequential(*blocks))

    def c3(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) normalised RGB to C3 at stride 8."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layers[1](self.layers[0](x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) normalised RGB to C3, C4, C5 at strides 8, 16, 32."""
        c3 = self.c3(x)
        c4 = self.layers[2](c3)
        return c3, c4, self.layers[3](c4)
