"""Engines of TensorRT-RTX, built without a GPU, and what is said when one cannot be built."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.build import (
    BuildSettings,
    TensorRt,
    allow_precision,
    build_engine,
    import_tensorrt,
    version_numbers,
)

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def make_model(operator, *, weight_shape, shape=(1, 4, 8, 8), outputs=(1, 4, 8, 8), **attributes):
    """One node with a weight, of shapes that fit; serialised."""
    weight = np.random.default_rng(0).normal(size=weight_shape).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"], name="layer7", **attributes)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


CONVOLUTION = make_model("Conv", weight_shape=(4, 4, 1, 1))


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx")
    return import_tensorrt("tensorrt_rtx")


def build(content, library, *capabilities, **more):
    return build_engine(
        content,
        "detect",
        library=library,
        precision="fp32",
        capabilities=capabilities or ("8.9",),
        **more,
    )


def test_an_engine_is_built_without_a_gpu(rtx):
    fractions = []

    def progress(fraction):
        fractions.append(fraction)
        return True

    assert len(build(CONVOLUTION, rtx, progress=progress)) > 1000
    assert fractions and all(0 <= fraction <= 1 for fraction in fractions)


def test_rtx_tells_what_it_compiles_for(rtx):
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(rtx.capabilities())
    assert rtx.label.startswith("TensorRT-RTX ")
    assert rtx.strongly_typed


def test_a_gpu_that_rtx_does_not_compile_for_is_named(rtx):
    with pytest.raises(BackendError, match=r"does not compile for 8\.7; it compiles for 7\.5"):
        build(CONVOLUTION, rtx, "8.9", "8.7")


def test_an_operator_that_is_not_supported_is_named_with_its_node(rtx):
    model = make_model("BitShift", weight_shape=(4,), direction="LEFT")
    with pytest.raises(BackendError, match=r"graph 'detect': .*layer7.*\(BitShift\)"):
        build(model, rtx)


def test_deformable_convolution_gets_a_hint(rtx):
    model = make_model("DeformConv", weight_shape=(1, 18, 8, 8), shape=(1, 1, 10, 10))
    with pytest.raises(BackendError, match="TensorRT-RTX not at all; .*--deform-conv grid_sample"):
        build(model, rtx)


def test_what_one_of_several_gpus_cannot_do_fails_the_build(rtx):
    model = make_model("MatMul", weight_shape=(8, 8), shape=(8, 8), outputs=(8, 8))
    assert build(model, rtx, "8.6", "8.9", "12.0")
    with pytest.raises(BackendError, match="failed with the graph 'detect'.*SM75"):
        build(model, rtx, "7.5", "8.9")


def test_what_is_no_model_is_refused(rtx):
    with pytest.raises(BackendError, match="does not read the graph 'detect'"):
        build(b"no model", rtx)


def test_a_build_can_be_stopped(rtx):
    with pytest.raises(BackendError, match="was stopped"):
        build(CONVOLUTION, rtx, progress=lambda fraction: False)


def test_rtx_has_no_timing_cache(rtx, tmp_path):
    with pytest.raises(BackendError, match="times no kernels"):
        build(CONVOLUTION, rtx, settings=BuildSettings(timing_cache=tmp_path / "times.cache"))


@pytest.fixture
def tensorrt10(rtx):
    """The path of TensorRT 10, on the bindings of TensorRT-RTX, which are nearly the same."""
    return replace(rtx, name="tensorrt", version="10.3.0")


# The bindings say that in TensorRT-RTX a timing cache is of no use.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_timing_cache_is_made_and_used_again(tensorrt10, tmp_path):
    settings = BuildSettings(workspace_mib=64, timing_cache=tmp_path / "new" / "times.cache")
    for _ in range(2):
        assert build(CONVOLUTION, tensorrt10, settings=settings)
    assert settings.timing_cache.stat().st_size > 0


def test_tensorrt_8_is_told_which_layers_stay_float():
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Relu", ["x"], ["half"]),
                helper.make_node("Cast", ["half"], ["float"], to=TensorProto.FLOAT),
                helper.make_node("Softmax", ["float"], ["y"]),
            ],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [2, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        )
    )
    layers = [FakeLayer(name) for name in ("half", "float", "y", "inner")]
    network = types.SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    flags = types.SimpleNamespace(FP16=1, INT8=2, OBEY_PRECISION_CONSTRAINTS=3)
    trt = types.SimpleNamespace(float32="float32", BuilderFlag=flags)
    config = FakeConfig()
    old = TensorRt("tensorrt", "8.6.2", trt)
    allow_precision(network, config, model.SerializeToString(), library=old, precision="fp16")
    assert config.flags == {1, 3}
    assert [layer.precision for layer in layers] == [None, "float32", "float32", None]
    assert layers[2].output_types == {0: "float32"}


class FakeConfig:
    def __init__(self):
        self.flags = set()
        self.set_flag = self.flags.add


class FakeLayer:
    """A layer of TensorRT 8 with one output, which has the name of its tensor in the graph."""

    num_outputs = 1

    def __init__(self, name):
        self.name = name
        self.precision = None
        self.output_types = {}
        self.set_output_type = self.output_types.__setitem__

    def get_output(self, place):
        return self


def test_a_library_that_is_not_there_is_told_with_where_to_get_it(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"no TensorRT here.*JetPack.*pip install"):
        import_tensorrt()
    with pytest.raises(BackendError, match="Unknown library 'cudnn'"):
        import_tensorrt("cudnn")


def test_a_library_that_is_too_old_is_refused(monkeypatch):
    old = types.ModuleType("tensorrt")
    old.__version__ = "8.4.1.5"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendError, match=r"TensorRT 8\.4\.1\.5 is too old; expected 8\.5"):
        import_tensorrt()


def test_full_tensorrt_gets_its_plugins(monkeypatch):
    full = types.ModuleType("tensorrt")
    full.__version__ = "10.3.0"
    started = []
    full.init_libnvinfer_plugins = lambda *words: started.append(words)
    monkeypatch.setitem(sys.modules, "tensorrt", full)
    assert import_tensorrt().label == "TensorRT 10.3.0"
    assert started == [(None, "")]


@pytest.mark.parametrize(
    "version, numbers",
    [("10.3.0", (10, 3, 0)), ("8.6.2.post1", (8, 6, 2)), ("11.0", (11, 0)), ("", ())],
)
def test_versions_are_read_as_numbers(version, numbers):
    assert version_numbers(version) == numbers
