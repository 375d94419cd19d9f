"""Define the named networks, each derived from another one.

Source of the official ones: dbolya/yolact and haotian-liu/yolact_edge `data/config.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from yolact_ros.classes import COCO, PASCAL_SBD, TABLETOP, YOUTUBE_VIS
from yolact_ros.config import BackboneConfig, FlowConfig, ModelConfig
from yolact_ros.errors import ConfigError


def octave_scales(base: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Return the scales of YOLACT++: each side, and one and two thirds of an octave above it."""
    return tuple(tuple(side * 2 ** (third / 3) for third in range(3)) for side in base)


def resized_scales(side: int) -> tuple[tuple[float, ...], ...]:
    """Return the scales of YOLACT's 550 pixel networks for another input side, in whole pixels."""
    return tuple((int(scale / 550 * side),) for scale in (24, 48, 96, 192, 384))


VARIANTS: dict[str, ModelConfig] = {}


def _define(name: str, base: ModelConfig, **changes: Any) -> ModelConfig:
    """Add a network that differs from `base` in its name and in some settings."""
    VARIANTS[name] = replace(base, name=name, **changes)
    return VARIANTS[name]


RESNET50 = BackboneConfig("resnet50")
BASE = _define("yolact_base", ModelConfig("", COCO, BackboneConfig("resnet101")))
_define("yolact_im400", BASE, input_size=(400, 400), prior_scales=resized_scales(400))
_define("yolact_im700", BASE, input_size=(700, 700), prior_scales=resized_scales(700))
YOLACT_RESNET50 = _define("yolact_resnet50", BASE, backbone=RESNET50)
_define("yolact_resnet152", BASE, backbone=BackboneConfig("resnet152"))
_define(
    "yolact_darknet53",
    BASE,
    backbone=BackboneConfig("darknet53"),
    pixel_mean=(0.0, 0.0, 0.0),
    pixel_std=(255.0, 255.0, 255.0),
)
_define(
    "yolact_resnet50_pascal",
    YOLACT_RESNET50,
    classes=PASCAL_SBD,
    prior_scales=((32,), (64,), (128,), (256,), (512,)),
    square_priors=False,
)

PLUS_BASE = _define(
    "yolact_plus_base",
    BASE,
    backbone=BackboneConfig("resnet101", (0, 4, 23, 3), 3),
    prior_scales=octave_scales((24, 48, 96, 192, 384)),
    square_priors=False,
    mask_rescoring=True,
)
YOLACT_PLUS_RESNET50 = _define(
    "yolact_plus_resnet50", PLUS_BASE, backbone=BackboneConfig("resnet50", (0, 4, 6, 3), 1)
)

# YolactEdge's single-image networks are YOLACT's; only the runtime differs.
EDGE = _define("yolact_edge", BASE)
_define("yolact_edge_resnet50", EDGE, backbone=RESNET50)
_define("yolact_edge_mobilenetv2", EDGE, backbone=BackboneConfig("mobilenet_v2"))
EDGE_YOUTUBEVIS = _define("yolact_edge_youtubevis", EDGE, classes=YOUTUBE_VIS)
_define("yolact_edge_youtubevis_resnet50", EDGE_YOUTUBEVIS, backbone=RESNET50)
EDGE_VID = _define("yolact_edge_vid", EDGE_YOUTUBEVIS, flow=FlowConfig())
YOLACT_EDGE_VID_RESNET50 = _define("yolact_edge_vid_resnet50", EDGE_VID, backbone=RESNET50)
_define("yolact_edge_vid_minimal", EDGE_VID, flow=FlowConfig(spa=False))
# The training stage in which only the flow network learns.
_define("yolact_edge_vid_trainflow", EDGE_VID)
_define("yolact_edge_vid_trainflow_resnet50", EDGE_VID, backbone=RESNET50)

# The shipped demo model: small enough for a CPU, trained on simulated tabletops.
TABLETOP_MODEL = _define(
    "tabletop",
    PLUS_BASE,
    classes=TABLETOP,
    backbone=BackboneConfig("efficientnet_lite0"),
    input_size=(320, 320),
    channels=96,
    prior_scales=octave_scales((16, 32, 64, 128, 256)),
    # The network was pretrained on RGB scaled to [-1, 1].
    pixel_mean=(127.0, 127.0, 127.0),
    pixel_std=(128.0, 128.0, 128.0),
)


def variant(name: str) -> ModelConfig:
    """Return the named network.

    Raises:
        ConfigError: no variant has this name; the message lists all names.
    """
    if name not in VARIANTS:
        raise ConfigError(f"Unknown variant {name!r}; known: {', '.join(sorted(VARIANTS))}.")
    return VARIANTS[name]
