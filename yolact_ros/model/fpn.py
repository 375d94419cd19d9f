"""Define YOLACT's feature pyramid (Lin et al. 2017): P3..P5 from C3..C5, then P6 and P7."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from yolact_ros.model.deform_conv import DeformConv2d


class Fpn(nn.Module):
    """Computes the feature pyramid in two steps, between which keyframe features can be cached."""

    def __init__(
        self,
        in_channels: tuple[int, int, int],
        channels: int,
        *,
        deformable_levels: tuple[int, ...] = (),
    ) -> None:
        """Create the layers.

        Args:
            in_channels: channels of C3..C5.
            channels: channels of P3..P7.
            deformable_levels: levels out of 3, 4, 5 whose 3x3 convolution is deformable.
        """
        super().__init__()
        # Index 0 is C3 / P3; the official checkpoints store them in reverse.
        self.lateral_layers = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.predict_layers = nn.ModuleList(
            DeformConv2d(channels, channels)
            if level in deformable_levels
            else nn.Conv2d(channels, channels, 3, padding=1)
            for level in (3, 4, 5)
        )
        self.downsample_layers = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2)
        )

    def lateral(self, c3: Tensor) -> Tensor:
        """Compute the lateral of C3, (B, channels, h, w), without the deeper levels."""
        return self.lateral_layers[0](c3)

    def merge_deep(self, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the part of the top-down path that later frames reuse.

        Returns:
            x4 and x5, see `merge`.
        """
        x5 = self.lateral_layers[2](c5)
        return resize_like(x5, c4) + self.lateral_layers[1](c4), x5

    @staticmethod
    def merge_lateral(x4: Tensor, lateral: Tensor) -> Tensor:
        """Add the lateral of C3 to the upsampled x4, which yields x3."""
        return resize_like(x4, lateral) + lateral

    def merge(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add each lateral to the upsampled sum of the deeper levels (top-down path).

        Returns:
            x3, x4, x5, each (B, channels, h, w) at its level, before the 3x3 convolutions.
        """
        x4, x5 = self.merge_deep(c4, c5)
        return self.merge_lateral(x4, self.lateral(c3)), x4, x5

    def predict(self, x3: Tensor, x4: Tensor, x5: Tensor) -> tuple[Tensor, ...]:
        """Smooth the sums into P3, P4, P5 and downsample P5 twice.

        P6 and P7 have no activation, as in the reference (`relu_downsample_layers=False`).

        Returns:
            P3..P7, each (B, channels, h, w).
        """
        p3, p4, p5 = (
            F.relu(layer(x)) for layer, x in zip(self.predict_layers, (x3, x4, x5), strict=True)
        )
        p6 = self.downsample_layers[0](p5)
        return p3, p4, p5, p6, self.downsample_layers[1](p6)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> tuple[Tensor, ...]:
        """Compute P3..P7 from C3, C4, C5."""
        return self.predict(*self.merge(c3, c4, c5))


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    """Resize x (B, C, h, w) bilinearly to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
