"""Quantized graphs stay close to float, and exact where nothing is quantized, for every target."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.errors import BackendError, BundleError  # noqa: E402
from yolact_ros.export.int8_bundle import (  # noqa: E402
    Quantizer,
    expose_raw_outputs,
    output_error,
    quantize_bundle,  # noqa: E402
    run_graph,
)
from yolact_ros.export.options import ExportOptions  # noqa: E402
from yolact_ros.export.to_bundle import export_bundle  # noqa: E402
from yolact_ros.export.to_onnx import halve_weights, widen_weights  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights, save_checkpoint  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from yolact_ros.runtime.backends.tensorrt.build import build_engine  # noqa: E402
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt  # noqa: E402
from yolact_ros.runtime.bundle import Bundle  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

TINY = replace(
    TABLETOP_MODEL, input_size=(64, 96), channels=8, num_prototypes=4, mask_rescoring=False
)


@pytest.fixture(scope="module")
def convolution() -> bytes:
    """Build a 1x1 convolution of two channels to three, with round numbers."""
    weight = np.array([[127, 0], [0, -127], [63, 64]], np.float32)[..., None, None] / 127
    bias = np.array([0.25, 0.0, -0.5], np.float32)
    node = helper.make_node("Conv", ["x", "layer.weight", "layer.bias"], ["y"])
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 4])],
        [
            numpy_helper.from_array(weight, "layer.weight"),
            numpy_helper.from_array(bias, "layer.bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def feed(seed: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32)
    x[0, :, 0, 0] = 1, -1  # every calibration image spans the whole range
    return {"x": x}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    model = Yolact(TINY)
    initialise_weights(model)
    save_checkpoint(folder / "model.pth", model)
    options = ExportOptions(keyframes=True, half_weights=True)
    export_bundle(folder / "model.pth", folder / "fp32", options)
    return folder / "fp32"


def images(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (1, 64, 96, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_a_convolution_in_int8_differs_by_the_rounding_of_its_tensors(convolution, target):
    feeds = [feed(seed) for seed in range(4)]
    quantizer = Quantizer(convolution, feeds, target=target)
    assert quantizer.layers == ("layer",)
    (got,), (expected,) = (
        run_graph(content, feeds[:1])[0]
        for content in (quantizer.quantize(["layer"]), convolution)
    )
    # Steps: of x 2/254 or less, of the weights 1/63 (7 bits) or less, of y about 3/254.
    bound = 2 * (2 / 254) / 2 + 2 * (1 / 63) / 2 + (3 / 254) / 2
    assert 0 < np.abs(got - expected).max() < 1.5 * bound


def test_tensorrt_gets_symmetric_int8_and_float_biases(convolution):
    quantizer = Quantizer(convolution, [feed(0)], target="tensorrt")
    model = onnx.load_model_from_string(quantizer.quantize(["layer"]))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeros = [values[n.input[2]] for n in model.graph.node if n.op_type.endswith("eLinear")]
    assert len(zeros) == 3  # Q and DQ of the input, DQ of the weights; none after the layer
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    assert values[conv.input[2]].dtype == np.float32
    takers = [node.op_type for node in model.graph.node if conv.output[0] in node.input]
    assert "QuantizeLinear" not in takers


def test_without_quantized_layers_the_graph_is_unchanged(convolution):
    quantizer = Quantizer(convolution, [feed(0)], target="onnxruntime")
    (got,), (expected,) = (
        run_graph(content, [feed(1)])[0] for content in (quantizer.quantize([]), convolution)
    )
    np.testing.assert_array_equal(got, expected)


def test_the_error_is_that_of_the_worst_output():
    expected = [[np.array([3.0, 4.0]), np.array([1.0])]]
    outputs = [[np.array([3.0, 4.5]), np.array([1.2])]]
    assert output_error(outputs, expected) == pytest.approx(0.2)
    assert output_error(expected, expected) == 0


def test_without_images_there_is_no_calibration(convolution):
    with pytest.raises(BackendError, match="no calibration images"):
        Quantizer(convolution, [], target="onnxruntime")


def test_widening_undoes_halving(bundle):
    content = bundle.joinpath("keyframe.onnx").read_bytes()
    wide = onnx.load_model_from_string(widen_weights(content))
    assert not any(t.data_type == TensorProto.FLOAT16 for t in wide.graph.initializer)
    again = onnx.load_model_from_string(halve_weights(wide.SerializeToString()))
    stored = {t.name: t.raw_data for t in onnx.load_model_from_string(content).graph.initializer}
    assert {t.name: t.raw_data for t in again.graph.initializer} == stored


STEM = "network.backbone.stem.0"


def test_a_bundle_for_video_runs_quantized_and_says_so(bundle, tmp_path):
    folder = tmp_path / "int8"
    names = [f"detect.{STEM}"]
    graphs = quantize_bundle(bundle, folder, images(3), float_layers=names)
    assert {graph.graph for graph in graphs} == {"keyframe", "non_keyframe_flow", "prototypes"}
    for graph in graphs:
        assert 0 < graph.error < 1
        assert graph.megabytes[1] < graph.megabytes[0]
        if graph.graph == "prototypes":  # has no stem
            continue
        assert list(graph.float_layers) == names
        content = onnx.load(str(folder / f"{graph.graph}.onnx"))
        (stem,) = [n for n in content.graph.node if n.op_type == "Conv" and STEM in n.name]
        assert stem.input[1] in {tensor.name for tensor in content.graph.initializer}
    assert Bundle.open(folder).description.precision == "int8"
    content = json.loads((folder / "model.json").read_text())["quantization"]
    assert content["graphs"]["keyframe"] == {"float_layers": names, "errors": {}}
    with Segmenter.open(folder) as segmenter:
        stream = segmenter.stream()
        image = np.zeros((48, 64, 3), np.uint8)
        types = [stream.detect(image).frame_type for _ in range(2)]
    assert types == ["keyframe", "partial"]


@pytest.fixture(scope="module")
def quantized_for_tensorrt(bundle):
    """Export for TensorRT, two cameras and masks in the graph; quantize all layers but one."""
    folder = bundle.parent
    export_bundle(
        folder / "model.pth",
        folder / "trt32",
        ExportOptions(target="tensorrt", batch=2, max_detections=10, masks="graph"),
        images=1,
    )
    names = [STEM]
    (graph,) = quantize_bundle(
        folder / "trt32", folder / "trt8", images(3), target="tensorrt", float_layers=names
    )
    return graph, Bundle.open(folder / "trt8")


def test_for_tensorrt_other_layers_compute_in_half(quantized_for_tensorrt):
    graph, bundle = quantized_for_tensorrt
    assert 0 < graph.error < 1
    assert (bundle.description.target, bundle.description.precision) == ("tensorrt", "int8")
    outputs = {name: info.dtype for name, info in bundle.graphs["detect"].outputs.items()}
    assert outputs["masks"] == "uint8"
    assert outputs["boxes"] == outputs["scores"] == "float32"
    content = onnx.shape_inference.infer_shapes(onnx.load(str(bundle.graphs["detect"].path)))
    types = {v.name: v.type.tensor_type.elem_type for v in content.graph.value_info}
    convolutions = [n for n in content.graph.node if n.op_type == "Conv" and n.output[0] in types]
    assert len(convolutions) > 20
    assert {types[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}
    feeds = [{"image": np.concatenate(images(2))}]
    for values in run_graph(bundle.graphs["detect"].path.read_bytes(), feeds)[0]:
        assert np.isfinite(values).all() and len(values) == 2


def test_onnx_runtime_runs_a_bundle_quantized_for_tensorrt_as_it_is(quantized_for_tensorrt):
    """ONNX Runtime's optimiser would fuse half-precision layers into something else."""
    import onnxruntime

    _, bundle = quantized_for_tensorrt
    inputs = {"image": np.concatenate(images(2))}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(
        bundle.graphs["detect"].path, options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in plain.get_outputs()]
    expected = dict(zip(names, plain.run(names, inputs), strict=True))
    for name, value in OnnxRuntimeBackend(bundle, threads=1).run("detect", inputs).items():
        np.testing.assert_array_equal(value, expected[name])


def test_tensorrt_rtx_compiles_a_quantized_bundle(quantized_for_tensorrt):
    pytest.importorskip("tensorrt_rtx")
    _, bundle = quantized_for_tensorrt
    assert build_engine(
        bundle.read_graph("detect"),
        "detect",
        library=import_tensorrt("tensorrt_rtx"),
        capabilities=("7.5", "8.6", "8.9", "12.0"),
    )


def test_int8_for_tensorrt_is_not_made_from_graphs_for_onnx_runtime(bundle, tmp_path):
    with pytest.raises(BundleError, match="exported for onnxruntime; expected tensorrt"):
        quantize_bundle(bundle, tmp_path / "int8", images(1), target="tensorrt")


def test_errors_are_measured_on_the_inputs_of_nms():
    content = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Softmax", ["x"], ["probabilities"]),
                helper.make_node("TopK", ["probabilities", "k"], ["scores", "places"]),
                helper.make_node("Identity", ["x"], ["prototypes"]),
            ],
            "nms",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
            [
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2]),
                helper.make_tensor_value_info("prototypes", TensorProto.FLOAT, [1, 4]),
            ],
            [numpy_helper.from_array(np.array([2], np.int64), "k")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    ).SerializeToString()
    x = np.array([[0.0, 0.0, 0.0, 0.0]], np.float32)
    prototypes, probabilities = run_graph(expose_raw_outputs(content), [{"x": x}])[0]
    np.testing.assert_array_equal(prototypes, x)
    np.testing.assert_allclose(probabilities, [[0.25] * 4])


def test_errors_are_measured_on_prototypes_where_a_graph_outputs_masks(quantized_for_tensorrt):
    _, bundle = quantized_for_tensorrt
    raw = run_graph(
        expose_raw_outputs(bundle.read_graph("detect")), [{"image": np.concatenate(images(2))}]
    )[0]
    shapes = [value.shape for value in raw]
    assert (1, 2 * TINY.num_prototypes, *TINY.prototype_size) in shapes
    assert all(len(shape) >= 3 for shape in shapes)  # no rows of detections


def test_a_missing_layer_is_named(bundle, tmp_path):
    with pytest.raises(BackendError, match="no layer steem; the layers are: .*stem"):
        quantize_bundle(bundle, tmp_path / "int8", images(1), float_layers=["steem"])
    assert not (tmp_path / "int8").exists()


def test_each_layer_is_measured_alone():
    """The second layer, an identity of many channels, loses less in 8 bits than a sum does."""
    first = np.array([[1.0, 0.003]], np.float32)[..., None, None]
    second = np.array([[1.0]], np.float32)[..., None, None]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "rough.weight"], ["h"]),
            helper.make_node("Conv", ["h", "fine.weight"], ["y"]),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4, 4])],
        [
            numpy_helper.from_array(first, "rough.weight"),
            numpy_helper.from_array(second, "fine.weight"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 2, 4, 4)).astype(np.float32)
    x[:, 1] *= 300  # lost in 7 bits of the weight, though it is half of the sum
    errors = Quantizer(model.SerializeToString(), [{"x": x}], target="tensorrt").measure(
        [{"x": x}]
    )
    assert list(errors) == ["rough", "fine"]
    assert errors["rough"] > 0.2
    assert errors["fine"] < 0.01


def test_int8_is_not_made_from_int8(bundle, tmp_path, capsys):
    quantize_bundle(bundle, tmp_path / "int8", images(1), float_layers=())
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), images(1)[0][0])
    words = ["quantize", str(tmp_path / "int8"), "-o", str(tmp_path / "again"), "--images"]
    assert main([*words, str(tmp_path / "images")]) == 1
    assert "computes in int8" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()
