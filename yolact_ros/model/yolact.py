"""The network on one page: backbone, pyramid, prototypes, predictions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolact_ros.config import ModelConfig
from yolact_ros.model.backbones import make_backbone
from yolact_ros.model.fpn import Fpn
from yolact_ros.model.heads import MaskRescoring, PredictionHead, Protonet
from yolact_ros.priors import make_priors


class YolactOutput(NamedTuple):
    """What the network says of B images, the same in training and evaluation.

    Official names in brackets.
    """

    box_offsets: Tensor
    """(B, P, 4) from the priors, see `priors.decode_boxes` [loc]."""
    class_logits: Tensor
    """(B, P, C + 1), background first, before softmax [conf]."""
    coefficients: Tensor
    """(B, P, K) in [-1, 1], after tanh [mask]."""
    prototypes: Tensor
    """(B, Hp, Wp, K), zero or more [proto]."""
    semantic_logits: Tensor
    """(B, C, h, w) at the size of P3, no background; a training signal only [segm]."""


class Yolact(nn.Module):
    """YOLACT (Bolya et al. 2019) and YOLACT++ (2020), as its configuration says."""

    priors: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone, backbone_channels = make_backbone(config.backbone)
        self.fpn = Fpn(backbone_channels, config.channels)
        self.protonet = Protonet(config.channels, config.num_prototypes)
        self.head = PredictionHead(config)
        self.semantic_head = nn.Conv2d(config.channels, config.num_classes, 1)
        self.mask_rescoring = MaskRescoring(config.num_classes) if config.mask_rescoring else None
        # (P, 4) centre form, made from the configuration, so never stored in a checkpoint.
        self.register_buffer("priors", torch.from_numpy(make_priors(config)), persistent=False)

    def forward(self, images: Tensor) -> YolactOutput:
        """Run the network.

        Args:
            images: (B, 3, H, W) float, normalised RGB (`inference.normalise`), of the
                configuration's input size.
        """
        pyramid = self.fpn(*self.backbone(images))
        box_offsets, class_logits, coefficients = self.head(pyramid)
        return YolactOutput(
            box_offsets=box_offsets,
            class_logits=class_logits,
            coefficients=coefficients,
            prototypes=self.protonet(pyramid[0]),
            semantic_logits=self.semantic_head(pyramid[0]),
        )
