"""Define the named networks, derived from each other with `replace`.

Source of the official ones: dbolya/yolact and haotian-liu/yolact_edge `data/config.py`.
"""

from __future__ import annotations

from dataclasses import replace

from yolact_ros.classes import COCO, PASCAL_SBD, TABLETOP, YOUTUBE_VIS
from yolact_ros.config import BackboneConfig, FlowConfig, ModelConfig
from yolact_ros.errors import ConfigError


def octave_scales(base: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Return the scales of YOLACT++: each side, and one and two thirds of an octave above it."""
    return tuple(tuple(side * 2 ** (third / 3) for third in range(3)) for side in base)


def resized_scales(side: int) -> tuple[tuple[float, ...], ...]:
    """Return the scales of YOLACT's 550 pixel networks for another input side, in whole pixels."""
    return tuple((int(scale / 550 * side),) for scale in (24, 48, 96, 192, 384))


def with_resnet50(model: ModelConfig) -> ModelConfig:
    """Return the same network on ResNet-50, with the authors' name."""
    return replace(model, name=f"{model.name}_resnet50", backbone=BackboneConfig("resnet50"))


YOLACT_BASE = ModelConfig("yolact_base", COCO, BackboneConfig("resnet101"))
YOLACT_IM400 = replace(
    YOLACT_BASE, name="yolact_im400", input_size=(400, 400), prior_scales=resized_scales(400)
)
YOLACT_IM700 = replace(
    YOLACT_BASE, name="yolact_im700", input_size=(700, 700), prior_scales=resized_scales(700)
)
YOLACT_RESNET50 = replace(YOLACT_BASE, name="yolact_resnet50", backbone=BackboneConfig("resnet50"))
YOLACT_RESNET152 = replace(
    YOLACT_BASE, name="yolact_resnet152", backbone=BackboneConfig("resnet152")
)
YOLACT_DARKNET53 = replace(
    YOLACT_BASE,
    name="yolact_darknet53",
    backbone=BackboneConfig("darknet53"),
    pixel_mean=(0.0, 0.0, 0.0),
    pixel_std=(255.0, 255.0, 255.0),
)
YOLACT_RESNET50_PASCAL = replace(
    YOLACT_RESNET50,
    name="yolact_resnet50_pascal",
    classes=PASCAL_SBD,
    prior_scales=((32,), (64,), (128,), (256,), (512,)),
    square_priors=False,
)

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

# YolactEdge's single-image networks are YOLACT's; only the runtime differs.
YOLACT_EDGE = replace(YOLACT_BASE, name="yolact_edge")
YOLACT_EDGE_MOBILENETV2 = replace(
    YOLACT_BASE, name="yolact_edge_mobilenetv2", backbone=BackboneConfig("mobilenet_v2")
)
YOLACT_EDGE_YOUTUBEVIS = replace(YOLACT_EDGE, name="yolact_edge_youtubevis", classes=YOUTUBE_VIS)
YOLACT_EDGE_VID = replace(YOLACT_EDGE_YOUTUBEVIS, name="yolact_edge_vid", flow=FlowConfig())
YOLACT_EDGE_VID_MINIMAL = replace(
    YOLACT_EDGE_VID, name="yolact_edge_vid_minimal", flow=FlowConfig(spa=False)
)
# The training stage in which only the flow network learns.
YOLACT_EDGE_VID_TRAINFLOW = replace(YOLACT_EDGE_VID, name="yolact_edge_vid_trainflow")

YOLACT_EDGE_RESNET50 = with_resnet50(YOLACT_EDGE)
YOLACT_EDGE_YOUTUBEVIS_RESNET50 = with_resnet50(YOLACT_EDGE_YOUTUBEVIS)
YOLACT_EDGE_VID_RESNET50 = with_resnet50(YOLACT_EDGE_VID)
YOLACT_EDGE_VID_TRAINFLOW_RESNET50 = with_resnet50(YOLACT_EDGE_VID_TRAINFLOW)

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
        YOLACT_IM400,
        YOLACT_IM700,
        YOLACT_RESNET50,
        YOLACT_RESNET152,
        YOLACT_DARKNET53,
        YOLACT_RESNET50_PASCAL,
        YOLACT_PLUS_BASE,
        YOLACT_PLUS_RESNET50,
        YOLACT_EDGE,
        YOLACT_EDGE_RESNET50,
        YOLACT_EDGE_MOBILENETV2,
        YOLACT_EDGE_YOUTUBEVIS,
        YOLACT_EDGE_YOUTUBEVIS_RESNET50,
        YOLACT_EDGE_VID,
        YOLACT_EDGE_VID_RESNET50,
        YOLACT_EDGE_VID_MINIMAL,
        YOLACT_EDGE_VID_TRAINFLOW,
        YOLACT_EDGE_VID_TRAINFLOW_RESNET50,
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
