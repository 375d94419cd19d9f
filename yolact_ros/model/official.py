"""Entry names of the authors' checkpoints, and what each becomes here.

Facts: reference state dicts of dbolya/yolact 902073d and haotian-liu/yolact_edge 873fceb. Both
store the FPN's per-level layers in reverse, C5 first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# (pattern, replacement), tried in this order; a function reverses the FPN's level index.
RENAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.(.*)\.conv_offset_mask\.(weight|bias)", r"backbone.\1.offset_mask.\2"),
    (r"backbone\.(.*)", r"backbone.\1"),
    (r"fpn\.lat_layers\.0\.(.*)", r"fpn.lateral_layers.2.\1"),
    (r"fpn\.lat_layers\.1\.(.*)", r"fpn.lateral_layers.1.\1"),
    (r"fpn\.lat_layers\.2\.(.*)", r"fpn.lateral_layers.0.\1"),
    (r"fpn\.pred_layers\.0\.(.*)", r"fpn.predict_layers.2.\1"),
    (r"fpn\.pred_layers\.1\.(.*)", r"fpn.predict_layers.1.\1"),
    (r"fpn\.pred_layers\.2\.(.*)", r"fpn.predict_layers.0.\1"),
    (r"fpn\.downsample_layers\.([01])\.(.*)", r"fpn.downsample_layers.\1.\2"),
    (r"proto_net\.(.*)", r"protonet.layers.\1"),
    (r"prediction_layers\.0\.upfeature\.0\.(.*)", r"head.tower.\1"),
    (r"prediction_layers\.0\.bbox_layer\.(.*)", r"head.box_offsets.\1"),
    (r"prediction_layers\.0\.conf_layer\.(.*)", r"head.class_logits.\1"),
    (r"prediction_layers\.0\.mask_layer\.(.*)", r"head.coefficients.\1"),
    (r"semantic_seg_conv\.(.*)", r"semantic_head.\1"),
    (r"maskiou_net\.maskiou_net\.(.*)", r"mask_rescoring.layers.\1"),
)


def rename_official(name: str) -> str | None:
    """Return our name of an official entry, or None if it has none."""
    for pattern, replacement in RENAMES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return None


def convert_official(entries: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the entries of an official state dict.

    Returns:
        Our entries, and the official names that have no counterpart here.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in entries.items():
        ours = rename_official(name)
        if ours is None:
            unknown.append(name)
        else:
            converted[ours] = tensor
    return converted, unknown
