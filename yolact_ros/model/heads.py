"""Define YOLACT's heads: prototypes, predictions for each prior, mask re-scoring."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolact_ros.config import ModelConfig


def _conv3x3(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1)


class Protonet(nn.Module):
    """Computes the prototypes from P3 (YOLACT section 3.1)."""

    def __init__(self, channels: int, num_prototypes: int) -> None:
        super().__init__()
        # Indices follow the official `proto_net`: 6 is the upsampling, odd indices are ReLU.
        self.layers = nn.ModuleDict(
            {str(index): _conv3x3(channels) for index in (0, 2, 4, 8)}
            | {"10": nn.Conv2d(channels, num_prototypes, 1)}
        )

    def forward(self, p3: Tensor) -> Tensor:
        """Compute non-negative prototypes (B, 2h, 2w, K) from P3 (B, channels, h, w)."""
        x = p3
        for index in ("0", "2", "4"):
            x = F.relu(self.layers[index](x))
        # The reference has one more ReLU after this, whose input is never negative.
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = F.relu(self.layers["8"](x))
        return F.relu(self.layers["10"](x)).permute(0, 2, 3, 1)


class PredictionHead(nn.Module):
    """Predicts box offsets, class logits and coefficients of each prior with shared weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, priors = config.channels, config.priors_per_cell
        self.num_logits = config.num_classes + 1
        self.num_prototypes = config.num_prototypes
        self.tower = _conv3x3(channels)
        self.box_offsets = nn.Conv2d(channels, priors * 4, 3, padding=1)
        self.class_logits = nn.Conv2d(channels, priors * self.num_logits, 3, padding=1)
        self.coefficients = nn.Conv2d(channels, priors * self.num_prototypes, 3, padding=1)

    def forward(self, pyramid: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute (B, P, 4) offsets, (B, P, C + 1) logits and (B, P, K) coefficients in [-1, 1].

        The priors are ordered by level, row, column and prior of the cell (`priors.make_priors`).
        """
        features = self.features(pyramid)
        box_offsets = self._flatten(self.box_offsets, features, 4)
        coefficients = self._flatten(self.coefficients, features, self.num_prototypes)
        return box_offsets, self.classify(features), coefficients.tanh()

    def features(self, pyramid: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Compute what offsets, logits and coefficients share, in the shapes of P3..P7."""
        return tuple(F.relu(self.tower(level)) for level in pyramid)

    def classify(self, features: tuple[Tensor, ...]) -> Tensor:
        """Compute (B, P, C + 1) class logits from the result of `features`, as `forward` does."""
        return self._flatten(self.class_logits, features, self.num_logits)

    def predict_cells(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Predict box offsets and coefficients of the priors of single cells, as `forward` does.

        Args:
            patches: (n, 9, channels), for each cell the `features` of the 3x3 cells around it, row
                by row, zero outside the map.

        Returns:
            (n, A, 4) offsets and (n, A, K) coefficients of the A priors of each cell.
        """
        box_offsets = self._at_cells(self.box_offsets, patches, 4)
        return box_offsets, self._at_cells(self.coefficients, patches, self.num_prototypes).tanh()

    @staticmethod
    def _at_cells(layer: nn.Conv2d, patches: Tensor, values: int) -> Tensor:
        # A 3x3 convolution at a few positions is a matrix product.
        weight = layer.weight.permute(0, 2, 3, 1).flatten(1)
        found = F.linear(patches.flatten(1), weight, layer.bias)
        return found.reshape(found.shape[0], weight.shape[0] // values, values)

    @staticmethod
    def _flatten(layer: nn.Module, features: tuple[Tensor, ...], values: int) -> Tensor:
        # (B, A * values, h, w) -> (B, h * w * A, values), one level after the other.
        return torch.cat(
            [
                layer(level).permute(0, 2, 3, 1).reshape(level.shape[0], -1, values)
                for level in features
            ],
            dim=1,
        )


class MaskRescoring(nn.Module):
    """Predicts the IoU of a soft mask with its object for every class (YOLACT++ section 4.3)."""

    CHANNELS = (1, 8, 16, 32, 64, 128)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # Indices follow the official `maskiou_net`; odd indices are ReLU. There is no padding.
        layers: dict[str, nn.Module] = {
            str(2 * index): nn.Conv2d(narrow, wide, 3, stride=2)
            for index, (narrow, wide) in enumerate(
                zip(self.CHANNELS[:-1], self.CHANNELS[1:], strict=True)
            )
        }
        layers["10"] = nn.Conv2d(self.CHANNELS[-1], num_classes, 1)
        self.layers = nn.ModuleDict(layers)

    def forward(self, masks: Tensor) -> Tensor:
        """Predict the IoU (N, C), 0 or more, of soft cropped masks (N, 1, Hp, Wp)."""
        x = masks
        for layer in self.layers.values():
            x = F.relu(layer(x))
        return x.amax(dim=(2, 3))
