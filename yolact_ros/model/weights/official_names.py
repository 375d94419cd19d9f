"""Define the entry names of the authors' checkpoints, and the rules that rename them.

Facts: the state dicts of dbolya/yolact 902073d and haotian-liu/yolact_edge 873fceb. Both store the
FPN layers of C3..C5 in reverse order, C5 first.
"""

from __future__ import annotations

import re

from yolact_ros.config import BackboneConfig
from yolact_ros.errors import WeightsError

Rules = tuple[tuple[str, str], ...]

# Prefixes that an entry name of any network may have; they carry no information.
PREFIXES: Rules = (
    (r"module\.", ""),  # a network saved inside torch.nn.DataParallel
    (r"flow_net\.flow_net\.", "flow_net."),  # YolactEdge's wrapper around its TensorRT engine
    (r"fpn_phase_1\.(?=lat_layers)", "fpn."),  # YolactEdge has the pyramid in two halves
    (r"fpn_phase_2\.(?=pred_layers|downsample_layers)", "fpn."),
)

# Official pattern -> our entry.
RENAMES: Rules = (
    *((rf"fpn\.lat_layers\.{i}\.(.*)", rf"fpn.lateral_layers.{2 - i}.\1") for i in range(3)),
    *((rf"fpn\.pred_layers\.{i}\.(.*)", rf"fpn.predict_layers.{2 - i}.\1") for i in range(3)),
    (r"fpn\.downsample_layers\.([01])\.(.*)", r"fpn.downsample_layers.\1.\2"),
    (r"proto_net\.(.*)", r"protonet.layers.\1"),
    (r"prediction_layers\.0\.upfeature\.0\.(.*)", r"head.tower.\1"),
    (r"prediction_layers\.0\.bbox_layer\.(.*)", r"head.box_offsets.\1"),
    (r"prediction_layers\.0\.conf_layer\.(.*)", r"head.class_logits.\1"),
    (r"prediction_layers\.0\.mask_layer\.(.*)", r"head.coefficients.\1"),
    (r"semantic_seg_conv\.(.*)", r"semantic_head.\1"),
    (r"maskiou_net\.maskiou_net\.(.*)", r"mask_rescoring.layers.\1"),
    (r"flow_net_pre_convs\.convs\.0\.0\.(.*)", r"feature_transform.reduce.0.\1"),
    (r"flow_net\.conv1\.([01])\.0\.(.*)", r"feature_transform.flow_net.stages.0.\1.0.\2"),
    (r"flow_net\.conv2\.([01])\.0\.(.*)", r"feature_transform.flow_net.stages.1.\1.0.\2"),
    (r"flow_net\.conv3\.([01])\.0\.(.*)", r"feature_transform.flow_net.stages.2.\1.0.\2"),
    (r"flow_net\.pred2\.conv\.(.*)", r"feature_transform.flow_net.head4.flow.\1"),
    (r"flow_net\.pred2\.(scale|bias)\.(.*)", r"feature_transform.flow_net.head4.\1.\2"),
    (r"flow_net\.pred3\.conv\.(.*)", r"feature_transform.flow_net.head5.flow.\1"),
    (r"flow_net\.pred3\.(scale|bias)\.(.*)", r"feature_transform.flow_net.head5.\1.\2"),
    (r"flow_net\.upfeat3\.(.*)", r"feature_transform.flow_net.enlarge_features.\1"),
    (r"flow_net\.upflow3\.(.*)", r"feature_transform.flow_net.enlarge_flow.\1"),
    (r"spa\.refine_convs\.0\.0\.(.*)", r"feature_transform.refinement.layer4.0.\1"),
    (r"spa\.refine_convs\.1\.0\.(.*)", r"feature_transform.refinement.layer5.0.\1"),
)

RESNET_RENAMES: Rules = (
    (
        r"backbone\.layers\.(.*)\.conv_offset_mask\.(weight|bias)",
        r"backbone.layers.\1.offset_mask.\2",
    ),
    (r"backbone\.layers\.(.*)", r"backbone.layers.\1"),
    (r"backbone\.(conv1|bn1)\.(.*)", r"backbone.\1.\2"),
)
DARKNET_RENAMES: Rules = (
    (r"backbone\._preconv\.(.*)", r"backbone.stem.\1"),
    (r"backbone\.layers\.(.*)", r"backbone.layers.\1"),
)
# Group 1 does not expand, so its indices are one lower than those of groups 2 to 6.
MOBILENET_RENAMES: Rules = (
    (r"backbone\.layers\.0\.([01])\.(.*)", r"backbone.stem.\1.\2"),
    (r"backbone\.layers\.1\.0\.conv\.0\.([01])\.(.*)", r"backbone.groups.1.0.depthwise.\1.\2"),
    (r"backbone\.layers\.1\.0\.conv\.1\.(.*)", r"backbone.groups.1.0.project.0.\1"),
    (r"backbone\.layers\.1\.0\.conv\.2\.(.*)", r"backbone.groups.1.0.project.1.\1"),
    (
        r"backbone\.layers\.([2-6])\.(\d+)\.conv\.0\.([01])\.(.*)",
        r"backbone.groups.\1.\2.expand.\3.\4",
    ),
    (
        r"backbone\.layers\.([2-6])\.(\d+)\.conv\.1\.([01])\.(.*)",
        r"backbone.groups.\1.\2.depthwise.\3.\4",
    ),
    (r"backbone\.layers\.([2-6])\.(\d+)\.conv\.2\.(.*)", r"backbone.groups.\1.\2.project.0.\3"),
    (r"backbone\.layers\.([2-6])\.(\d+)\.conv\.3\.(.*)", r"backbone.groups.\1.\2.project.1.\3"),
)

# Official pattern -> reason for leaving the entry out.
LEFTOVERS: Rules = (
    (r"backbone\.layer(?!s).*", "second names of the backbone's stages, from before YOLACT 1.0"),
    (r"fpn\.downsample_layers\.(?![01]\.)\d+\..*", "levels above P7, which no network uses"),
    (r"partial_backbone\..*", "second copy of the backbone up to C3"),
    (
        r"flow_net\.(pred1|upfeat2|upflow2)\..*",
        "flow at stride 8, which only the reference's training uses",
    ),
)
MOBILENET_LEFTOVERS: Rules = (
    (r"backbone\.layers\.[78]\..*", "backbone after C5, which nothing uses"),
)

_BACKBONES: dict[str, tuple[Rules, Rules]] = {
    "resnet50": (RESNET_RENAMES, ()),
    "resnet101": (RESNET_RENAMES, ()),
    "resnet152": (RESNET_RENAMES, ()),
    "darknet53": (DARKNET_RENAMES, ()),
    "mobilenet_v2": (MOBILENET_RENAMES, MOBILENET_LEFTOVERS),
}

# Our entries whose shape or meaning depends on the classes.
CLASS_ENTRIES = (
    r"head\.class_logits\..*",
    r"semantic_head\..*",
    r"mask_rescoring\.layers\.10\..*",
)


def rules_of(backbone: BackboneConfig) -> tuple[Rules, Rules]:
    """Return the rules for renaming and leaving out entries of networks with this backbone.

    Raises:
        WeightsError: no official checkpoint has it.
    """
    if backbone.name not in _BACKBONES:
        raise WeightsError(
            f"No official checkpoint has the backbone {backbone.name!r}; "
            f"known: {', '.join(_BACKBONES)}."
        )
    renames, leftovers = _BACKBONES[backbone.name]
    return RENAMES + renames, LEFTOVERS + leftovers


def strip_prefixes(name: str) -> str:
    """Remove the prefixes that carry no information from an official name."""
    for pattern, replacement in PREFIXES:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def rename(rules: Rules, name: str) -> str | None:
    """Return our name of an official entry, or None if no rule applies."""
    for pattern, replacement in rules:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return None


def reason_to_leave(rules: Rules, name: str) -> str | None:
    """Return the reason for leaving out an official entry, or None if no rule applies."""
    return next((reason for pattern, reason in rules if re.fullmatch(pattern, name)), None)


def depends_on_classes(ours: str) -> bool:
    """Return whether the shape or meaning of one of our entries depends on the classes."""
    return any(re.fullmatch(pattern, ours) for pattern in CLASS_ENTRIES)
