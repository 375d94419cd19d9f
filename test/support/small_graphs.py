"""Export graphs of a few variants, small enough for a test; requires torch and onnx."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from yolact_ros.config import BackboneConfig, FlowConfig
from yolact_ros.export.graphs import detection_graphs, video_graphs
from yolact_ros.export.to_onnx import export_module
from yolact_ros.model.deform_conv import DeformConv2d, set_deform_conv_form
from yolact_ros.model.weights.checkpoint import initialise_weights
from yolact_ros.model.yolact import Yolact
from yolact_ros.variants import (
    TABLETOP_MODEL,
    YOLACT_EDGE_VID_RESNET50,
    YOLACT_PLUS_RESNET50,
    YOLACT_RESNET50,
)

# Narrow after the backbone and of few classes: the same operators, in a tenth of the time.
SMALL = {"classes": ("a", "b", "c"), "channels": 8, "num_prototypes": 8}

VARIANTS = {
    "yolact": replace(YOLACT_RESNET50, input_size=(128, 128), **SMALL),
    # Of 13 deformable layers three, one of stride 2 among them.
    "yolact_plus": replace(
        YOLACT_PLUS_RESNET50,
        input_size=(256, 256),
        backbone=BackboneConfig("resnet50", (0, 0, 0, 3), 1),
        **SMALL,
    ),
    "yolact_edge": replace(
        YOLACT_EDGE_VID_RESNET50, input_size=(128, 128), flow=FlowConfig(channels=4), **SMALL
    ),
    "tabletop_masks": replace(TABLETOP_MODEL, input_size=(256, 256), **SMALL),
}
VARIANTS["tabletop_masks_two_cameras"] = VARIANTS["tabletop_masks"]
VARIANTS["yolact_edge_two_cameras"] = VARIANTS["yolact_edge"]

GRAPHS = [
    ("yolact", "detect"),
    ("yolact_plus", "detect"),
    ("yolact_edge", "keyframe"),
    ("yolact_edge", "non_keyframe"),
    ("yolact_edge", "non_keyframe_flow"),
    ("tabletop_masks", "detect"),
    ("tabletop_masks_two_cameras", "detect"),
    ("yolact_edge_two_cameras", "keyframe"),
    ("yolact_edge_two_cameras", "non_keyframe"),
    ("yolact_edge_two_cameras", "non_keyframe_flow"),
]


def graph_exporter() -> Callable[[str, str], bytes]:
    """Return a function that exports a graph of a variant as a float32 ONNX model.

    Each graph is exported once. Offsets of deformable layers are not zero.
    """
    models, contents = {}, {}

    def export(variant, name):
        if variant not in models:
            torch.manual_seed(0)
            model = Yolact(VARIANTS[variant])
            initialise_weights(model)
            set_deform_conv_form(model.eval(), "grid_sample")
            for module in model.modules():  # as after training: taps move
                if isinstance(module, DeformConv2d):
                    torch.nn.init.normal_(module.offset_mask.weight, std=0.05)
            models[variant] = model
        cameras = 2 if variant.endswith("two_cameras") else 1
        masks = variant.startswith("tabletop_masks")
        graphs = detection_graphs(models[variant], max_detections=20, batch=cameras, masks=masks)
        if variant.startswith("yolact_edge"):
            graphs = video_graphs(graphs, batch=cameras)
        if (variant, name) not in contents:
            (graph,) = (graph for graph in graphs if graph.name == name)
            contents[variant, name] = export_module(
                graph.module, graph.example, inputs=graph.inputs, outputs=graph.outputs
            )
        return contents[variant, name]

    return export
