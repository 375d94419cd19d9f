"""The network on one page: backbone, pyramid, prototypes, predictions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolact_ros.config import ModelConfig
from yolact_ros.model.backbones import make_backbone
from yolact_ros.model.feature_transform import FeatureTransform, KeyframeFeatures, warp_by_flow
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
    """YOLACT (Bolya et al. 2019), YOLACT++ (2020) or YolactEdge (2021), by its configuration.

    `forward` is the pass of single images; `keyframe` and `non_keyframe` are those of video.
    """

    priors: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone, backbone_channels = make_backbone(config.backbone)
        self.fpn = Fpn(
            backbone_channels, config.channels, deformable_levels=config.deformable_levels
        )
        self.protonet = Protonet(config.channels, config.num_prototypes)
        self.head = PredictionHead(config)
        self.semantic_head = nn.Conv2d(config.channels, config.num_classes, 1)
        self.mask_rescoring = MaskRescoring(config.num_classes) if config.mask_rescoring else None
        self.feature_transform = (
            FeatureTransform(config.flow, config.channels) if config.flow is not None else None
        )
        # (P, 4) centre form, made from the configuration, so never stored in a checkpoint.
        self.register_buffer("priors", torch.from_numpy(make_priors(config)), persistent=False)

    def forward(self, images: Tensor) -> YolactOutput:
        """Run the network.

        Args:
            images: (B, 3, H, W) float, normalised RGB (`inference.normalise`), of the
                configuration's input size.
        """
        return self.predict(self.pyramid(images))

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images, as for `forward`, to P3..P7."""
        pyramid: tuple[Tensor, ...] = self.fpn(*self.backbone(images))
        return pyramid

    def predict(self, pyramid: tuple[Tensor, ...]) -> YolactOutput:
        """Run everything behind the pyramid, P3..P7."""
        box_offsets, class_logits, coefficients = self.head(pyramid)
        return YolactOutput(
            box_offsets=box_offsets,
            class_logits=class_logits,
            coefficients=coefficients,
            prototypes=self.protonet(pyramid[0]),
            semantic_logits=self.semantic_head(pyramid[0]),
        )

    def keyframe(self, images: Tensor) -> tuple[YolactOutput, KeyframeFeatures]:
        """Run the whole network, and keep what the frames behind this one need.

        Args:
            images: as for `forward`, whose numbers this gives.
        """
        pyramid, features = self.keyframe_pyramid(images)
        return self.predict(pyramid), features

    def keyframe_pyramid(self, images: Tensor) -> tuple[tuple[Tensor, ...], KeyframeFeatures]:
        """P3..P7 of `keyframe`, and what it keeps."""
        c3, c4, c5 = self.backbone(images)
        lateral = self.fpn.lateral(c3)
        x4, x5 = self.fpn.merge_deep(c4, c5)
        pyramid = self.fpn.predict(self.fpn.merge_lateral(x4, lateral), x4, x5)
        transform = self.feature_transform
        reduced = None if transform is None else transform.reduce(lateral)
        return pyramid, KeyframeFeatures(x4, x5, reduced)

    def non_keyframe(self, images: Tensor, features: KeyframeFeatures) -> YolactOutput:
        """Run the backbone only to C3, and move the rest from the keyframe.

        Args:
            images: as for `forward`; one for each image of the keyframe.
            features: what `keyframe` kept.

        Raises:
            ValueError: the network has no flow network (`config.flow` is None).
        """
        return self.predict(self.non_keyframe_pyramid(images, features))

    def non_keyframe_pyramid(
        self, images: Tensor, features: KeyframeFeatures
    ) -> tuple[Tensor, ...]:
        """P3..P7 of `non_keyframe`."""
        return self.fpn.predict(*self.partial_sums(images, features))

    def partial_sums(
        self, images: Tensor, features: KeyframeFeatures
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x3, x4, x5 of a frame between keyframes, in place of `Fpn.merge`; see `non_keyframe`."""
        if self.feature_transform is None:
            raise ValueError(f"Model {self.config.name!r} has no flow network to move features.")
        lateral = self.fpn.lateral(self.backbone.c3(images))
        x4, x5 = self.feature_transform(lateral, features)
        x3 = self.fpn.merge_lateral(x4, lateral)  # of x4 before it is refined, as the reference
        x4, x5 = self.feature_transform.refine(x4, x5, lateral)
        return x3, x4, x5

    def non_keyframe_by_flow(
        self, images: Tensor, x4: Tensor, x5: Tensor, *, flow: Tensor
    ) -> YolactOutput:
        """Run the backbone only to C3, and move the rest by a given flow; needs no training.

        Args:
            images: as for `forward`; one for each image of the keyframe.
            x4: of the keyframe's `KeyframeFeatures`.
            x5: the same.
            flow: see `flow.warp_by_flow`; zero keeps the features where they are.
        """
        return self.predict(self.non_keyframe_pyramid_by_flow(images, x4, x5, flow=flow))

    def non_keyframe_pyramid_by_flow(
        self, images: Tensor, x4: Tensor, x5: Tensor, *, flow: Tensor
    ) -> tuple[Tensor, ...]:
        """P3..P7 of `non_keyframe_by_flow`."""
        lateral = self.fpn.lateral(self.backbone.c3(images))
        x4, x5 = warp_by_flow(x4, x5, flow)
        return self.fpn.predict(self.fpn.merge_lateral(x4, lateral), x4, x5)
