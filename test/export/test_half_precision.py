"""Small graphs show which nodes compute in half precision and which stay in float."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from yolact_ros.errors import BackendError  # noqa: E402
from yolact_ros.export.fold_weights import fold_weights  # noqa: E402
from yolact_ros.export.half_precision import to_half  # noqa: E402
from yolact_ros.export.to_onnx import widen_weights  # noqa: E402
from yolact_ros.runtime.bundle import Bundle  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402
from yolact_ros.runtime.shipped import find_model  # noqa: E402

KINDS = {TensorProto.FLOAT: "float", TensorProto.FLOAT16: "half"}


def make_model(nodes, inputs, outputs, constants):
    """Build a model of nodes `(operator, inputs, output, attributes)` and tensors by name."""
    graph = helper.make_graph(
        [helper.make_node(op, i, [o], name=o, **more) for op, i, o, more in nodes],
        "graph",
        [helper.make_tensor_value_info(n, k, s) for n, (k, s) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def detector():
    """Build image, normalisation, a layer, a sampling layer, and two heads, one with softmax."""
    return make_model(
        [
            ("Cast", ["image"], "float_image", {"to": TensorProto.FLOAT}),
            ("Div", ["float_image", "std"], "normal", {}),
            ("Conv", ["normal", "w1"], "c1", {"pads": [1, 1, 1, 1]}),
            ("Relu", ["c1"], "r1", {}),
            ("Conv", ["r1", "w2"], "shifts", {}),
            ("Transpose", ["shifts"], "moved", {"perm": [0, 2, 3, 1]}),
            ("Mul", ["moved", "small"], "scaled", {}),
            ("Add", ["scaled", "base"], "grid", {}),
            ("GridSample", ["r1", "grid"], "sampled", {"mode": "linear"}),
            ("Conv", ["sampled", "w1b"], "c2", {"pads": [1, 1, 1, 1]}),
            ("Relu", ["c2"], "prototypes", {}),
            ("Conv", ["c2", "w3"], "head", {}),
            ("Reshape", ["head", "shape"], "logits", {}),
            ("Softmax", ["logits"], "scores", {}),
        ],
        {"image": (TensorProto.UINT8, [1, 3, 8, 8])},
        {"scores": [64, 4], "prototypes": [1, 4, 8, 8]},
        {
            "std": np.array(60, np.float32),
            "w1": weights(4, 3, 3, 3),
            "w1b": weights(4, 4, 3, 3, seed=1),
            "w2": weights(2, 4, 1, 1, seed=2),
            "w3": weights(4, 4, 1, 1, seed=3) * 0.1,
            "small": np.array(0.05, np.float32),
            "base": np.random.default_rng(4).uniform(-1, 1, (1, 8, 8, 2)).astype(np.float32),
            "shape": np.array([64, 4], np.int64),
        },
    )


def kinds_of(content):
    """Return the precision of each node's result by the node's name."""
    model = onnx.shape_inference.infer_shapes(
        onnx.load_model_from_string(content), strict_mode=True
    )
    infos = [*model.graph.value_info, *model.graph.output]
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    return {node.name: KINDS.get(types[node.output[0]]) for node in model.graph.node}


def run(content, **inputs):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def test_inputs_of_convolutions_are_half_and_the_rest_is_float():
    kinds = kinds_of(to_half(detector().SerializeToString(), half_borders=["prototypes"]))
    wanted = {
        "half": "c1 r1 shifts moved c2 prototypes head logits",
        "float": "float_image normal scaled grid sampled scores",
    }
    assert {name: kinds[name] for name in kinds if not name.startswith("cast_")} == {
        name: kind for kind, names in wanted.items() for name in names.split()
    }


def test_borders_keep_their_types_unless_named():
    model = detector().SerializeToString()
    for borders, kind in (((), np.float32), (("prototypes",), np.float16)):
        image = np.zeros((1, 3, 8, 8), np.uint8)
        found = run(to_half(model, half_borders=borders), image=image)
        assert found["prototypes"].dtype == kind
        assert found["scores"].dtype == np.float32


def test_half_precision_is_as_close_as_half_numbers_allow():
    model = detector().SerializeToString()
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 8, 8)).astype(np.uint8)
    expected = run(model, image=image)
    found = run(to_half(model, half_borders=["prototypes"]), image=image)
    for name, values in expected.items():
        error = np.abs(found[name] - values).max() / np.abs(values).max()
        assert 0 < error < 5e-3


class GraphBackend:
    """Runs the graphs of a bundle as `convert` returns them."""

    on_gpu = False

    def __init__(self, bundle, convert):
        contents = {
            name: convert(widen_weights(info.path.read_bytes()))
            for name, info in bundle.graphs.items()
        }
        self.sessions = {
            name: ort.InferenceSession(content, providers=["CPUExecutionProvider"])
            for name, content in contents.items()
        }

    def run(self, graph, inputs, *, keep=()):
        session = self.sessions[graph]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, inputs), strict=True))

    def close(self):
        self.sessions.clear()


def half(content):
    return to_half(content, half_borders=["prototypes"])


def test_the_shipped_model_finds_the_same_in_half_precision():
    bundle = Bundle.open(find_model("tabletop"))
    video = cv2.VideoCapture(str(bundle.folder.parent / "demo" / "tabletop.mp4"))
    _, frame = video.read()
    video.release()
    with (
        Segmenter(GraphBackend(bundle, lambda content: content), bundle.description) as in_float,
        Segmenter(GraphBackend(bundle, half), bundle.description) as in_half,
    ):
        expected, found = in_float.segment(frame), in_half.segment(frame)
    assert len(found) == len(expected) >= 5
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.01)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.5)  # pixels
    for i in range(len(found)):
        ours, theirs = found[i].mask, expected[i].mask
        assert (ours & theirs).sum() >= 0.99 * (ours | theirs).sum()


def test_an_input_of_features_can_be_half():
    model = make_model(
        [
            ("GridSample", ["x4", "flow"], "moved", {"mode": "linear"}),
            ("Conv", ["moved", "w"], "c", {}),
            ("Identity", ["c"], "y", {}),
        ],
        {"x4": (TensorProto.FLOAT, [1, 2, 4, 4]), "flow": (TensorProto.FLOAT, [1, 4, 4, 2])},
        {"y": [1, 2, 4, 4]},
        {"w": weights(2, 2, 1, 1)},
    )
    content = to_half(model.SerializeToString(), half_borders=["x4"])
    inputs = onnx.load_model_from_string(content).graph.input
    assert [KINDS[value.type.tensor_type.elem_type] for value in inputs] == ["half", "float"]
    x4, flow = weights(1, 2, 4, 4), np.clip(weights(1, 4, 4, 2), -1, 1)
    expected = run(model.SerializeToString(), x4=x4, flow=flow)["y"]
    found = run(content, x4=x4.astype(np.float16), flow=flow)["y"]
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_between_quantized_layers_values_are_half():
    quantized = ("scale", "zero")
    model = make_model(
        [
            ("Cast", ["image"], "float_image", {"to": TensorProto.FLOAT}),
            ("QuantizeLinear", ["float_image", *quantized], "q1", {}),
            ("DequantizeLinear", ["q1", *quantized], "d1", {}),
            ("DequantizeLinear", ["w", *quantized], "dw", {}),
            ("Conv", ["d1", "dw"], "c1", {}),
            ("Relu", ["c1"], "r1", {}),
            ("QuantizeLinear", ["r1", *quantized], "q2", {}),
            ("DequantizeLinear", ["q2", *quantized], "d2", {}),
            ("Conv", ["d2", "dw"], "c2", {}),
            ("Softmax", ["c2"], "y", {}),
        ],
        {"image": (TensorProto.UINT8, [1, 2, 3, 3])},
        {"y": [1, 2, 3, 3]},
        {
            "w": np.array([[3, -2], [1, 2]], np.int8).reshape(2, 2, 1, 1),
            "scale": np.array(0.5, np.float32),
            "zero": np.array(0, np.int8),
        },
    )
    content = to_half(model.SerializeToString(), half_borders=())
    kinds = kinds_of(content)
    assert {name for name in kinds if kinds[name] == "float"} == {
        *("float_image", "y"),
        *(name for name in kinds if name.endswith("_float")),
    }
    assert {"d1", "dw", "c1", "r1", "d2", "c2"} <= {n for n in kinds if kinds[n] == "half"}
    image = np.arange(18).reshape(1, 2, 3, 3).astype(np.uint8)
    expected = run(model.SerializeToString(), image=image)["y"]
    np.testing.assert_allclose(run(content, image=image)["y"], expected, atol=1e-3)


def test_a_scale_too_small_for_half_does_not_become_zero():
    model = make_model(
        [
            ("QuantizeLinear", ["x", "scale", "zero"], "q", {}),
            ("DequantizeLinear", ["q", "scale", "zero"], "d", {}),
            ("Conv", ["d", "w"], "y", {}),
        ],
        {"x": (TensorProto.FLOAT, [1, 1, 2, 2])},
        {"y": [1, 1, 2, 2]},
        {
            "w": weights(1, 1, 1, 1),
            "scale": np.array(1e-9, np.float32),
            "zero": np.array(0, np.int8),
        },
    )
    content = to_half(model.SerializeToString(), half_borders=())
    stored = {t.name: t for t in onnx.load_model_from_string(content).graph.initializer}
    assert numpy_helper.to_array(stored["scale_half"]) > 0


def test_a_weight_that_half_cannot_hold_is_refused():
    model = make_model(
        [("Conv", ["x", "w"], "y", {})],
        {"x": (TensorProto.FLOAT, [1, 1, 2, 2])},
        {"y": [1, 1, 2, 2]},
        {"w": np.full((1, 1, 1, 1), 1e5, np.float32)},
    )
    with pytest.raises(BackendError, match="weight w has a value of 100000.*--precision fp32"):
        to_half(model.SerializeToString(), half_borders=())


def test_a_graph_without_convolutions_stays_as_it_is():
    model = make_model(
        [("Softmax", ["x"], "y", {})],
        {"x": (TensorProto.FLOAT, [2, 3])},
        {"y": [2, 3]},
        {},
    )
    assert kinds_of(to_half(model.SerializeToString(), half_borders=())) == {"y": "float"}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_batch_norm_after_a_reshaped_weight_is_folded(bias):
    names = ("scale", "shift", "mean", "variance")
    model = make_model(
        [
            ("Reshape", ["w", "shape"], "kernel", {}),
            ("Conv", ["x", "kernel", *(["b"] if bias else [])], "c", {}),
            ("BatchNormalization", ["c", *names], "y", {"epsilon": 1e-3}),
        ],
        {"x": (TensorProto.FLOAT, [1, 4, 3, 3])},
        {"y": [1, 2, 3, 3]},
        {
            "w": weights(2, 1, 2, 2),
            "b": weights(2, seed=1),
            "shape": np.array([2, 4, 1, 1], np.int64),
            **{name: np.abs(weights(2, seed=2 + i)) for i, name in enumerate(names)},
        },
    )
    # The exporter notes shapes of weights too.
    note = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 1, 2, 2])
    model.graph.value_info.append(note)
    x = weights(1, 4, 3, 3)
    before = run(model.SerializeToString(), x=x)["y"]
    fold_weights(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    assert [tensor.name for tensor in model.graph.initializer] == ["w", "w.folded_bias"]
    after = run(model.SerializeToString(), x=x)["y"]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_batch_norm_is_kept_where_its_input_has_other_uses():
    names = ("scale", "shift", "mean", "variance")
    model = make_model(
        [
            ("Conv", ["x", "w"], "c", {}),
            ("BatchNormalization", ["c", *names], "n", {}),
            ("Add", ["c", "n"], "y", {}),
        ],
        {"x": (TensorProto.FLOAT, [1, 2, 3, 3])},
        {"y": [1, 2, 3, 3]},
        {
            "w": weights(2, 2, 1, 1),
            **{name: np.abs(weights(2, seed=2 + i)) for i, name in enumerate(names)},
        },
    )
    fold_weights(model)
    assert [node.op_type for node in model.graph.node] == ["Conv", "BatchNormalization", "Add"]
