"""TensorRT-RTX builds engines without a GPU, and failed builds explain themselves."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.build import (
    BuildSettings,
    build_engine,
    network_flags,
    sample_bilinearly,
)
from yolact_ros.runtime.backends.tensorrt.library import (
    import_tensorrt,
    shared_logger,
    version_numbers,
)

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def make_model(operator, *, weight_shape, shape=(1, 4, 8, 8), outputs=(1, 4, 8, 8), **attributes):
    """Serialize a model of one node with a weight, whose shapes fit."""
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
        capabilities=capabilities or ("8.9",),
        **more,
    )


def test_float_stays_float(rtx, monkeypatch):
    """TF32 rounds the inputs of convolutions, and is on unless it is cleared."""
    trt, cleared = rtx.module, []
    monkeypatch.setattr(
        trt.IBuilderConfig, "clear_flag", lambda config, flag: cleared.append(flag)
    )
    build(CONVOLUTION, rtx)
    assert cleared == [trt.BuilderFlag.TF32]


def test_an_engine_is_built_without_a_gpu(rtx):
    fractions = []

    def progress(fraction):
        fractions.append(fraction)
        return True

    assert len(build(CONVOLUTION, rtx, progress=progress)) > 1000
    assert fractions and all(0 <= fraction <= 1 for fraction in fractions)


def test_rtx_lists_what_it_compiles_for(rtx):
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(rtx.capabilities())
    assert rtx.label.startswith("TensorRT-RTX ")


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


def test_the_build_fails_if_one_of_several_gpus_lacks_a_feature(rtx):
    model = make_model("MatMul", weight_shape=(8, 8), shape=(8, 8), outputs=(8, 8))
    assert build(model, rtx, "8.6", "8.9", "12.0")
    with pytest.raises(BackendError, match="failed with the graph 'detect'.*SM75"):
        build(model, rtx, "7.5", "8.9")


def test_engines_share_a_logger(rtx, caplog):
    """As seen on a GPU: TensorRT warned of the logger of each further engine."""
    other = rtx.module.Builder(shared_logger(rtx.module))
    build(CONVOLUTION, rtx)
    assert not caplog.records
    del other


def test_anything_but_a_model_is_refused(rtx):
    with pytest.raises(BackendError, match="cannot read the graph 'detect'"):
        build(b"no model", rtx)


def test_a_build_can_be_stopped(rtx):
    with pytest.raises(BackendError, match="was stopped"):
        build(CONVOLUTION, rtx, progress=lambda fraction: False)


def test_rtx_has_no_timing_cache(rtx, tmp_path):
    with pytest.raises(BackendError, match="times no kernels"):
        build(CONVOLUTION, rtx, settings=BuildSettings(timing_cache=tmp_path / "times.cache"))


@pytest.fixture
def tensorrt10(rtx):
    """Emulate TensorRT 10 with the bindings of TensorRT-RTX, which are nearly the same."""
    return replace(rtx, name="tensorrt", version="10.3.0")


# The bindings say that in TensorRT-RTX a timing cache is of no use.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_timing_cache_is_made_and_used_again(tensorrt10, tmp_path):
    settings = BuildSettings(workspace_mib=64, timing_cache=tmp_path / "new" / "times.cache")
    for _ in range(2):
        assert build(CONVOLUTION, tensorrt10, settings=settings)
    assert settings.timing_cache.stat().st_size > 0


def grid_sample(mode: str, opset: int) -> bytes:
    """Serialize a model of one GridSample."""
    graph = helper.make_graph(
        [helper.make_node("GridSample", ["x", "grid"], ["y"], mode=mode, padding_mode="zeros")],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 8, 8)),
            helper.make_tensor_value_info("grid", TensorProto.FLOAT, (1, 8, 8, 2)),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8))],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def test_a_layer_that_the_parser_read_as_nearest_becomes_bilinear(rtx):
    trt = rtx.module
    builder = trt.Builder(shared_logger(trt))
    network = builder.create_network(network_flags(trt))
    assert trt.OnnxParser(network, shared_logger(trt)).parse(grid_sample("nearest", 19))

    def modes():
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        samples = [layer for layer in layers if layer.type == trt.LayerType.GRID_SAMPLE]
        for layer in samples:
            layer.__class__ = trt.IGridSampleLayer
        return [layer.interpolation_mode for layer in samples]

    assert modes() == [trt.InterpolationMode.NEAREST]
    sample_bilinearly(network, trt)
    assert modes() == [trt.InterpolationMode.LINEAR]


def test_a_build_corrects_the_sampling_and_limits_the_workspace(rtx, monkeypatch):
    from yolact_ros.runtime.backends.tensorrt import build as module

    trt, corrected, limits = rtx.module, [], []
    monkeypatch.setattr(module, "sample_bilinearly", lambda network, _: corrected.append(network))
    monkeypatch.setattr(
        trt.IBuilderConfig, "set_memory_pool_limit", lambda config, *limit: limits.append(limit)
    )
    monkeypatch.setattr(
        trt.Builder,
        "build_serialized_network",
        lambda builder, network, config: b"" if network in corrected else None,
    )
    model = grid_sample("linear", 20)
    settings = BuildSettings(workspace_mib=100)
    assert build_engine(model, "g", library=rtx, capabilities=("8.9",), settings=settings) == b""
    assert limits == [(trt.MemoryPoolType.WORKSPACE, 100 << 20)]


def test_a_missing_library_is_reported_with_its_source(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"TensorRT is not installed.*JetPack.*pip install"):
        import_tensorrt()
    with pytest.raises(BackendError, match="Unknown library 'cudnn'"):
        import_tensorrt("cudnn")


def test_a_library_that_is_too_old_is_refused(monkeypatch):
    old = types.ModuleType("tensorrt")
    old.__version__ = "8.6.1.6"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendError, match=r"TensorRT 8\.6\.1\.6 is too old; expected 10\.3"):
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


def test_progress_is_logged_with_the_time_left(monkeypatch, caplog):
    from yolact_ros.runtime.backends.tensorrt import build as progress

    clock = iter([100.0, 101.0, 120.0, 121.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    report = progress.LoggedProgress("engine 2 of 3 (keyframe)")
    with caplog.at_level("INFO"):
        assert all(report(fraction) for fraction in (0.0, 0.01, 0.25, 0.26))
    assert [record.getMessage() for record in caplog.records] == [
        "building engine 2 of 3 (keyframe): 25 %, about 60 s left"
    ]


def test_the_progress_callback_can_stop_the_build(tmp_path, monkeypatch):
    from yolact_ros.runtime.backends.tensorrt import backend as module
    from yolact_ros.runtime.backends.tensorrt.driver import Gpu

    closed, reports = [], []

    def build(bundle, graph, *, progress, **_):
        if not progress(0.5):
            raise BackendError(f"The build of the engine of {graph!r} was stopped.")
        return types.SimpleNamespace(content=b"", path=tmp_path)

    def report(state):
        reports.append(state.split(",")[0])
        return len(reports) < 2

    cuda = types.SimpleNamespace(close=lambda: closed.append(True))
    for name, value in {
        "check_target": lambda bundle: None,
        "import_tensorrt": lambda library: types.SimpleNamespace(ahead_of_time=True),
        "find_gpu": lambda device: Gpu("RTX", "8.9", 128, False),
        "Cuda": lambda device: cuda,
        "open_engine": build,
        "TensorRtEngine": lambda *_, **__: None,
    }.items():
        monkeypatch.setattr(module, name, value)
    bundle = types.SimpleNamespace(
        graphs=["keyframe", "non_keyframe", "more"],
        folder=tmp_path,
        description=types.SimpleNamespace(identity="0123"),
    )
    with pytest.raises(BackendError, match="'non_keyframe' was stopped"):
        module.open_tensorrt(bundle, report=report)
    assert reports == [
        "building engine 1 of 3 (keyframe): 50 %",
        "building engine 2 of 3 (non_keyframe): 50 %",
    ]
    assert closed == [True]


def test_a_build_on_a_jetson_shares_a_timing_cache_and_the_memory(tmp_path, monkeypatch):
    from yolact_ros.runtime.backends.tensorrt import build as module
    from yolact_ros.runtime.backends.tensorrt.driver import Gpu
    from yolact_ros.runtime.backends.tensorrt.library import TensorRt

    monkeypatch.setattr(module, "default_workspace", lambda gpu: 1000)
    orin = Gpu("Orin", "8.7", 8, True, 0)
    full = TensorRt("tensorrt", "10.3.0", None)
    assert BuildSettings.for_gpu(orin, full, tmp_path) == BuildSettings(
        1000, tmp_path / "tensorrt-10.3.0-sm87x8.timing"
    )
    rtx = TensorRt("tensorrt_rtx", "1.7.1", None)
    assert BuildSettings.for_gpu(orin, rtx, tmp_path).timing_cache is None
    assert BuildSettings.for_gpu(orin, full, None).timing_cache is None
