"""The named networks, as values made from each other with `replace`.

Facts of the official ones: dbolya/yolact and haotian-liu/yolact_edge `data/config.py`.
"""

from __future__ import annotations

from dataclasses import replace

from yolact_ros.classes import COCO, TABLETOP
from yolact_ros.config import BackboneConfig, ModelConfig
from yolact_ros.errors import ConfigError


def octave_scales(base: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """The YOLACT++ scales: every level's side, and one and two thirds of an octave more."""
    return tuple(tuple(side * 2 ** (third / 3) for third in range(3)) for side in base)


YOLACT_BASE = ModelConfig("yolact_base", COCO, BackboneConfig("resnet101"))
YOLACT_RESNET50 = replace(YOLACT_BASE, name="yolact_resnet50", backbone=BackboneConfig("resnet50"))
YOLACT_PLUS_BASE = replace(
    YOLACT_BASE,
    name="yolact_plus_base",
    backbone=BackboneConfig("resnet101", (0, 4, 23, 3), 3),
    prior_scales=octave_scales((24, 48, 96, 192, 384)),
    square_priors=False,
    mask_rescoring=True,
)
YOLACT_PLUS_RESNET50 = replace(
    YOLACT_PLUS_BASE,
    name="yolact_plus_resnet50",
    backbone=BackboneConfig("resnet50", (0, 4, 6, 3), 1),
)

# The shipped demo model: small enough for a CPU, trained on simulated table tops.
TABLETOP_MODEL = replace(
    YOLACT_PLUS_BASE,
    name="tabletop",
    classes=TABLETOP,
    backbone=BackboneConfig("efficientnet_lite0"),
    input_size=(320, 320),
    channels=96,
    num_prototypes=32,
    prior_scales=octave_scales((16, 32, 64, 128, 256)),
    # The network was pretrained on RGB scaled to [-1, 1].
    pixel_mean=(127.0, 127.0, 127.0),
    pixel_std=(128.0, 128.0, 128.0),
)

VARIANTS: dict[str, ModelConfig] = {
    model.name: model
    for model in (
        YOLACT_BASE,
        YOLACT_RESNET50,
        YOLACT_PLUS_BASE,
        YOLACT_PLUS_RESNET50,
        TABLETOP_MODEL,
    )
}


def variant(name: str) -> ModelConfig:
    """Return the named network.

    Raises:
        ConfigError: no variant has this name; the message lists all names.
    """
    if name not in VARIANTS:
        raise ConfigError(f"Unknown variant {name!r}; known: {', '.join(sorted(VARIANTS))}.")
    return VARIANTS[name]
