"""Define the whole network: backbone, pyramid, prototypes and predictions."""

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
    """Holds the network's output for B images, the same in training and evaluation.

    Official names are given in brackets.

    Attributes:
        box_offsets: (B, P, 4) offsets from the priors, see `boxes.decode_boxes` [loc].
        class_logits: (B, P, C + 1), background first, before softmax [conf].
        coefficients: (B, P, K) in [-1, 1], after tanh [mask].
        prototypes: (B, Hp, Wp, K), non-negative [proto].
        semantic_logits: (B, C, h, w) at the size of P3, without background; for training only
            [segm].
    """

    box_offsets: Tensor
    class_logits: Tensor
    coefficients: Tensor
    prototypes: Tensor
    semantic_logits: Tensor


class Yolact(nn.Module):
    """Implements YOLACT (Bolya et al. 2019), YOLACT++ (2020) or YolactEdge (2021).

    `forward` processes single images; `keyframe` and `non_keyframe` process video.
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
        # (P, 4) centre form; derived from the configuration, so not stored in checkpoints.
        self.register_buffer("priors", torch.from_numpy(make_priors(config)), persistent=False)

    def forward(self, images: Tensor) -> YolactOutput:
        """Run the network.

        Args:
            images: (B, 3, H, W) float, normalised RGB (`graphs.detect.normalise`) of the
                configured input size.
        """
        return self.predict(self.pyramid(images))

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute P3..P7 of images, as for `forward`."""
        pyramid: tuple[Tensor, ...] = self.fpn(*self.backbone(images))
        return pyramid

    def predict(self, pyramid: tuple[Tensor, ...]) -> YolactOutput:
        """Run the heads on the pyramid, P3..P7."""
        box_offsets, class_logits, coefficients = self.head(pyramid)
        return YolactOutput(
            box_offsets=box_offsets,
            class_logits=class_logits,
            coefficients=coefficients,
            prototypes=self.protonet(pyramid[0]),
            semantic_logits=self.semantic_head(pyramid[0]),
        )

    def keyframe(self, images: Tensor) -> tuple[YolactOutput, KeyframeFeatures]:
        """Run the whole network and return the features that later frames reuse.

        Args:
            images: as for `forward`, which returns the same output.
        """
        pyramid, features = self.keyframe_pyramid(images)
        return self.predict(pyramid), features

    def keyframe_pyramid(self, images: Tensor) -> tuple[tuple[Tensor, ...], KeyframeFeatures]:
        """Compute P3..P7 and the features of `keyframe`."""
        c3, c4, c5 = self.backbone(images)
        lateral = self.fpn.lateral(c3)
        x4, x5 = self.fpn.merge_deep(c4, c5)
        pyramid = self.fpn.predict(self.fpn.merge_lateral(x4, lateral), x4, x5)
        transform = self.feature_transform
        reduced = None if transform is None else transform.reduce(lateral)
        return pyramid, KeyframeFeatures(x4, x5, reduced)

    def non_keyframe(self, images: Tensor, features: KeyframeFeatures) -> YolactOutput:
        """Run the backbone to C3 only and take deeper features from the keyframe.

        Args:
            images: as for `forward`; one per image of the keyframe.
            features: features that `keyframe` returned.

        Raises:
            ValueError: the network has no flow network (`config.flow` is None).
        """
        return self.predict(self.non_keyframe_pyramid(images, features))

    def non_keyframe_pyramid(
        self, images: Tensor, features: KeyframeFeatures
    ) -> tuple[Tensor, ...]:
        """Compute P3..P7 of `non_keyframe`."""
        return self.fpn.predict(*self.partial_sums(images, features))

    def partial_sums(
        self, images: Tensor, features: KeyframeFeatures
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute x3, x4, x5 of a frame between keyframes, instead of `Fpn.merge`."""
        if self.feature_transform is None:
            raise ValueError(f"Model {self.config.name!r} has no flow network.")
        lateral = self.fpn.lateral(self.backbone.c3(images))
        x4, x5 = self.feature_transform(lateral, features)
        x3 = self.fpn.merge_lateral(x4, lateral)  # from x4 before refinement, as in the reference
        x4, x5 = self.feature_transform.refine(x4, x5, lateral)
        return x3, x4, x5

    def non_keyframe_by_flow(
        self, images: Tensor, x4: Tensor, x5: Tensor, *, flow: Tensor
    ) -> YolactOutput:
        """Run the backbone to C3 only and warp deeper features by a given flow.

        Args:
            images: as for `forward`; one per image of the keyframe.
            x4: x4 of the keyframe's `KeyframeFeatures`.
            x5: x5 of the keyframe's `KeyframeFeatures`.
            flow: see `feature_transform.warp_by_flow`; zero leaves the features in place.
        """
        return self.predict(self.non_keyframe_pyramid_by_flow(images, x4, x5, flow=flow))

    def non_keyframe_pyramid_by_flow(
        self, images: Tensor, x4: Tensor, x5: Tensor, *, flow: Tensor
    ) -> tuple[Tensor, ...]:
        """Compute P3..P7 of `non_keyframe_by_flow`."""
        lateral = self.fpn.lateral(self.backbone.c3(images))
        x4, x5 = warp_by_flow(x4, x5, flow)
        return self.fpn.predict(self.fpn.merge_lateral(x4, lateral), x4, x5)
