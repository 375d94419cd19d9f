"""TensorRT-RTX compiles the graphs of four variants ahead of time, for four generations of GPUs.

It parses each graph, checks its types and shapes, and compiles it for sm_75, sm_86, sm_89 and
sm_120. Nothing runs: this says nothing of numbers, of speed, of the last step of compilation,
which takes place on the GPU, nor of GPUs that TensorRT-RTX does not know (Orin, Hopper).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from yolact_ros.config import BackboneConfig, FlowConfig  # noqa: E402
from yolact_ros.export.graphs import detection_graphs, video_graphs  # noqa: E402
from yolact_ros.export.half_precision import HALF_BORDERS, to_half  # noqa: E402
from yolact_ros.export.to_onnx import export_module  # noqa: E402
from yolact_ros.model.deform_conv import set_deform_conv_form  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.runtime.backends.tensorrt.build import build_engine, import_tensorrt  # noqa: E402
from yolact_ros.variants import (  # noqa: E402
    TABLETOP_MODEL,
    YOLACT_EDGE_VID_RESNET50,
    YOLACT_PLUS_RESNET50,
    YOLACT_RESNET50,
)

CAPABILITIES = ("7.5", "8.6", "8.9", "12.0")

# Narrow behind the backbone and of few classes: the same operators, in a tenth of the time.
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
    "tabletop_two_cameras": replace(TABLETOP_MODEL, input_size=(256, 256), **SMALL),
}

GRAPHS = [
    ("yolact", "detect"),
    ("yolact_plus", "detect"),
    ("yolact_edge", "keyframe"),
    ("yolact_edge", "non_keyframe"),
    ("yolact_edge", "non_keyframe_flow"),
    ("tabletop_two_cameras", "detect"),
]


@pytest.fixture(scope="module")
def library():
    return import_tensorrt("tensorrt_rtx")


@pytest.fixture(scope="module")
def graph_of():
    """The float32 ONNX model of a variant's graph; each is exported once."""
    models, contents = {}, {}

    def export(variant, name):
        if variant not in models:
            torch.manual_seed(0)
            model = Yolact(VARIANTS[variant])
            initialise_weights(model)
            set_deform_conv_form(model.eval(), "grid_sample")
            models[variant] = model
        batch = 2 if variant == "tabletop_two_cameras" else 1
        graphs = detection_graphs(models[variant], max_detections=20, batch=batch)
        if variant == "yolact_edge":
            graphs = video_graphs(graphs, batch=batch)
        if (variant, name) not in contents:
            (graph,) = (graph for graph in graphs if graph.name == name)
            contents[variant, name] = export_module(
                graph.module, graph.example, inputs=graph.inputs, outputs=graph.outputs
            )
        return contents[variant, name]

    return export


@pytest.mark.parametrize("variant, name", GRAPHS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_compiles_for_four_generations_of_gpus(
    graph_of, library, variant, name, precision
):
    content = graph_of(variant, name)
    if precision == "fp16":
        content = to_half(content, half_borders=HALF_BORDERS)
    engine = build_engine(
        content, name, library=library, precision=precision, capabilities=CAPABILITIES
    )
    assert len(engine) > 0.5 * len(content)  # the weights are in it


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_graph_compiles_for_one_generation_alone(graph_of, library, capability):
    content = to_half(graph_of("tabletop_two_cameras", "detect"), half_borders=HALF_BORDERS)
    assert build_engine(
        content, "detect", library=library, precision="fp16", capabilities=(capability,)
    )


def quantized_convolutions():
    """Two convolutions with symmetric int8 on both sides, per-channel weights and float biases."""
    generator = np.random.default_rng(0)
    nodes, constants = [], {"zero": np.array(0, np.int8)}
    value = "image"
    for i in range(2):
        constants |= {
            f"scale{i}": np.array(0.02, np.float32),
            f"weight{i}": generator.integers(-127, 127, (16, 16, 3, 3)).astype(np.int8),
            f"weight_scale{i}": generator.uniform(0.001, 0.002, 16).astype(np.float32),
            f"weight_zero{i}": np.zeros(16, np.int8),
            f"bias{i}": generator.normal(size=16).astype(np.float32),
        }
        weight = [f"weight{i}", f"weight_scale{i}", f"weight_zero{i}"]
        scale = [f"scale{i}", "zero"]
        nodes += [
            helper.make_node("QuantizeLinear", [value, *scale], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", *scale], [f"x{i}"]),
            helper.make_node("DequantizeLinear", weight, [f"w{i}"], axis=0),
            helper.make_node("Conv", [f"x{i}", f"w{i}", f"bias{i}"], [f"c{i}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"y{i}"]),
        ]
        value = f"y{i}"
    shape = [1, 16, 32, 32]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y1", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.mark.parametrize("half", [False, True], ids=["float between", "half between"])
def test_quantized_convolutions_compile(library, half):
    content = quantized_convolutions()
    assert build_engine(
        to_half(content, half_borders=()) if half else content,
        "quantized",
        library=library,
        precision="int8",
        capabilities=CAPABILITIES,
    )
