"""TensorRT-RTX compiles the graphs of every variant ahead of time for four GPU generations.

It parses each graph, checks its types and shapes, and compiles it for sm_75, sm_86, sm_89 and
sm_120. Nothing runs: this says nothing of numbers, of speed, of the last step of compilation,
which takes place on the GPU, nor of GPUs that TensorRT-RTX does not know (Orin, Hopper).
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from small_graphs import GRAPHS  # noqa: E402

from yolact_ros.export.half_precision import to_half  # noqa: E402
from yolact_ros.runtime.backends.tensorrt.build import build_engine  # noqa: E402
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt  # noqa: E402

CAPABILITIES = ("7.5", "8.6", "8.9", "12.0")


@pytest.fixture(scope="module")
def library():
    return import_tensorrt("tensorrt_rtx")


@pytest.mark.parametrize("variant, name", GRAPHS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_compiles_for_four_generations_of_gpus(
    graph_of, library, variant, name, precision
):
    content = graph_of(variant, name)
    if precision == "fp16":
        content = to_half(content)
    engine = build_engine(content, name, library=library, capabilities=CAPABILITIES)
    assert len(engine) > 0.5 * len(content)  # the weights are in it


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_graph_compiles_for_one_generation_alone(graph_of, library, capability):
    content = to_half(graph_of("tabletop_masks_two_cameras", "detect"))
    assert build_engine(content, "detect", library=library, capabilities=(capability,))


def quantized_convolutions():
    """Build two int8 convolutions: symmetric, with per-channel weights and float biases."""
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
        capabilities=CAPABILITIES,
    )
