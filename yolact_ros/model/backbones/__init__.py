"""Build the backbones by name."""

from __future__ import annotations

from collections.abc import Callable

from yolact_ros.config import BackboneConfig
from yolact_ros.errors import ConfigError
from yolact_ros.model.backbones.darknet import DARKNET53_CHANNELS, DarkNet53
from yolact_ros.model.backbones.efficientnet import LITE0_CHANNELS, EfficientNetLite0
from yolact_ros.model.backbones.mobilenet import MOBILENET_V2_CHANNELS, MobileNetV2
from yolact_ros.model.backbones.resnet import RESNET_BLOCKS, RESNET_CHANNELS, ResNet

Backbone = ResNet | DarkNet53 | MobileNetV2 | EfficientNetLite0

BACKBONES: dict[str, tuple[Callable[[BackboneConfig], Backbone], tuple[int, int, int]]] = {
    **{name: (ResNet, RESNET_CHANNELS) for name in RESNET_BLOCKS},
    "darknet53": (lambda config: DarkNet53(), DARKNET53_CHANNELS),
    "mobilenet_v2": (lambda config: MobileNetV2(), MOBILENET_V2_CHANNELS),
    "efficientnet_lite0": (lambda config: EfficientNetLite0(), LITE0_CHANNELS),
}


def make_backbone(config: BackboneConfig) -> tuple[Backbone, tuple[int, int, int]]:
    """Build a backbone with initial weights.

    Returns:
        The module, which maps (B, 3, H, W) normalised RGB to C3, C4, C5 at strides 8, 16, 32, and
        their channels. Its method `c3` stops at C3, for frames between keyframes.

    Raises:
        ConfigError: the backbone is unknown, or it has no deformable form.
    """
    if config.name not in BACKBONES:
        raise ConfigError(
            f"Unknown backbone {config.name!r}; known: {', '.join(sorted(BACKBONES))}."
        )
    if any(config.deformable_blocks) and config.name not in RESNET_BLOCKS:
        raise ConfigError(
            f"Backbone {config.name!r} has no deformable blocks; "
            f"only these have them: {', '.join(RESNET_BLOCKS)}."
        )
    build, channels = BACKBONES[config.name]
    return build(config), channels
