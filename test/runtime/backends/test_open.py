from __future__ import annotations

import logging
import os
import sys

import numpy as np
import pytest

from yolact_ros.config import BackendConfig
from yolact_ros.errors import BackendError, BundleError, ConfigError
from yolact_ros.runtime.backends.onnxruntime import (
    OnnxRuntimeBackend,
    _quota,
    physical_cores,
    provider_options,
)
from yolact_ros.runtime.backends.open import open_backend
from yolact_ros.runtime.backends.tensorrt import driver
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.bundle_writer import write_bundle


def test_a_bundle_opens_on_onnx_runtime(tiny_bundle):
    backend, description = open_backend(tiny_bundle.folder, BackendConfig(threads=1))
    assert isinstance(backend, OnnxRuntimeBackend)
    assert backend.threads == 1
    assert description == tiny_bundle.description


def test_outputs_are_returned_by_name(tiny_bundle):
    backend = OnnxRuntimeBackend(tiny_bundle, threads=1)
    image = np.full((1, 32, 40, 3), 110, np.uint8)
    outputs = backend.run("detect", {"image": image}, keep=["prototypes"])
    assert set(outputs) == {"boxes", "class_scores", "coefficients", "prototypes"}
    prototypes = outputs["prototypes"].numpy()
    np.testing.assert_allclose(prototypes, np.ones((8, 10, 1)))  # (110 - 100) / 10


def test_threads_default_to_the_cores_that_the_process_may_use(tiny_bundle):
    assert OnnxRuntimeBackend(tiny_bundle).threads == physical_cores() >= 1


@pytest.mark.parametrize(
    "text, cpus", [("150000 100000\n", 2), ("50000 100000", 1), ("max 100000", sys.maxsize)]
)
def test_the_quota_of_a_container_is_read(tmp_path, text, cpus):
    (tmp_path / "cpu.max").write_text(text)
    assert _quota(tmp_path / "cpu.max") == cpus
    assert _quota(tmp_path / "absent") == sys.maxsize


def test_a_negative_number_of_threads_is_refused(tiny_bundle):
    with pytest.raises(BackendError, match="threads is -1"):
        OnnxRuntimeBackend(tiny_bundle, threads=-1)


@pytest.mark.parametrize(
    "image",
    [np.zeros((1, 32, 41, 3), np.uint8), np.zeros((1, 32, 40, 3), np.float32), np.uint8(3)],
    ids=["wrong size", "wrong type", "scalar"],
)
def test_an_input_that_does_not_fit_is_reported(tiny_bundle, image):
    backend = OnnxRuntimeBackend(tiny_bundle, threads=1)
    with pytest.raises(BackendError, match=r"expected \(1, 32, 40, 3\) uint8"):
        backend.run("detect", {"image": image})


def test_wrong_names_of_graph_and_inputs_are_reported(tiny_bundle):
    backend = OnnxRuntimeBackend(tiny_bundle, threads=1)
    with pytest.raises(BackendError, match="does not have the graph 'rescore'; it has: detect"):
        backend.run("rescore", {})
    with pytest.raises(BackendError, match="expects image; it received picture"):
        backend.run("detect", {"picture": np.zeros(3)})


def test_without_onnx_runtime_the_error_names_the_extra(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"pip install 'yolact_ros\[onnxruntime\]'"):
        open_backend(tiny_bundle.folder)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"backend": "abacus"}, "auto, onnxruntime, openvino, tensorrt, torch"),
        ({"provider": "abacus"}, "cpu, cuda, tensorrt"),
        ({"threads": -1}, "threads is -1"),
        ({"build_engine": "perhaps"}, "never, if_missing, always"),
    ],
)
def test_unusable_settings_get_the_list_of_usable_ones(settings, message):
    with pytest.raises(ConfigError, match=message):
        BackendConfig(**settings)


def test_a_provider_that_this_onnx_runtime_lacks_is_named(tiny_bundle):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BackendError, match=r"lacks CUDAExecutionProvider; it has: .*CPU"):
        open_backend(tiny_bundle.folder, BackendConfig(provider="cuda"))


def test_kept_features_pass_between_graphs_without_becoming_arrays(tiny_video_bundle):
    backend = OnnxRuntimeBackend(tiny_video_bundle, threads=1)
    image = np.full((1, 32, 40, 3), 110, np.uint8)
    plain = backend.run("keyframe", {"image": image})
    kept = backend.run("keyframe", {"image": image}, keep=["x4", "x5", "lateral"])
    for name, value in plain.items():
        is_kept = name in ("x4", "x5")
        assert isinstance(kept[name], np.ndarray) != is_kept
        got = kept[name].numpy() if is_kept else kept[name]
        np.testing.assert_array_equal(got, value)
    inputs = {"image": image, "flow": np.zeros((1, 2, 2, 3), np.float32)}
    features = {name: kept[name] for name in ("x4", "x5")}
    as_handles = backend.run("non_keyframe_flow", {**inputs, **features})
    as_arrays = backend.run("non_keyframe_flow", {**inputs, **{n: plain[n] for n in features}})
    for name, value in as_arrays.items():
        np.testing.assert_array_equal(as_handles[name], value)
    swapped = {"x4": kept["x5"], "x5": kept["x4"]}
    with pytest.raises(BackendError, match=r"'x4' .* shape \(1, 1, 1, 2\)"):
        backend.run("non_keyframe_flow", {**inputs, **swapped})


def test_a_bundle_for_the_cpu_does_not_open_on_tensorrt(tiny_bundle):
    with pytest.raises(BackendError, match="exported for onnxruntime.*--target tensorrt"):
        open_backend(tiny_bundle.folder, BackendConfig("tensorrt"))


def test_auto_logs_once_why_a_bundle_for_tensorrt_runs_on_the_cpu(
    tiny_bundle, tiny, tmp_path, monkeypatch, caplog
):
    bundle = write_bundle(
        tmp_path / "for_gpu",
        ModelDescription(tiny.TINY, "dense", 10, target="tensorrt"),
        graphs={"detect": tiny_bundle.graphs["detect"].path},
        source={},
        versions={},
    )
    monkeypatch.setattr(driver, "DRIVER", "libno-such-driver.so.1")
    with caplog.at_level(logging.WARNING):
        backend, _ = open_backend(bundle.folder)
        for _ in range(2):
            backend.run("detect", {"image": np.zeros((1, 32, 40, 3), np.uint8)})
    (record,) = caplog.records
    assert "runs with ONNX Runtime on the CPU" in record.getMessage()
    assert "No GPU: the NVIDIA driver's libno-such-driver" in record.getMessage()
    with pytest.raises(BackendError, match="No GPU|TensorRT is not installed"):
        open_backend(bundle.folder, BackendConfig("tensorrt"))


def test_the_error_for_a_checkpoint_on_onnx_runtime_names_the_export(tmp_path):
    path = tmp_path / "tiny.pth"
    path.write_bytes(b"weights")
    with pytest.raises(BackendError, match="yolact export"):
        open_backend(path, BackendConfig("onnxruntime"))


@pytest.mark.parametrize("name", ["auto", "onnxruntime", "torch"])
def test_a_path_that_does_not_exist_is_named(tmp_path, name):
    with pytest.raises(BundleError, match="nowhere does not exist"):
        open_backend(tmp_path / "nowhere", BackendConfig(name))


def test_a_new_shape_does_not_make_a_gpu_provider_search_or_build_again(tiny_bundle, tmp_path):
    from yolact_ros.runtime.bundle import GraphInfo, TensorInfo

    names = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    fixed = tiny_bundle.graphs["detect"]
    tensorrt, cuda, cpu = provider_options(names, fixed, device=1, engines=tmp_path / "new")
    assert cpu == "CPUExecutionProvider"
    assert cuda[1] == {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"}
    folder = str(tmp_path / "new" / "onnxruntime_tensorrt")
    assert os.path.isdir(folder)  # the provider makes no more than the last folder of a path
    assert "trt_fp16_enable" not in tensorrt[1]
    unwritable = provider_options(names, fixed, device=1, half=True)[0][1]
    assert unwritable == {"device_id": "1", "trt_fp16_enable": "1"}
    assert tensorrt[1]["trt_engine_cache_path"] == tensorrt[1]["trt_timing_cache_path"] == folder
    free = GraphInfo(fixed.path, {"p3": TensorInfo((1, 8, -1, -1), "float32")}, {}, "0" * 64)
    options = provider_options(names, free, device=0)
    assert [option[0] for option in options[:-1]] == ["CUDAExecutionProvider"]


def test_half_precision_and_the_device_reach_the_provider(tiny_bundle, monkeypatch, tmp_path):
    import onnxruntime

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    given = []

    def start(content, sess_options, providers):
        given.append(dict(providers[:2]))
        raise RuntimeError("no GPU")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", start)
    for precision in ("f16", "f32"):
        config = BackendConfig(provider="tensorrt", precision=precision, device=1)
        backend, _ = open_backend(tiny_bundle.folder, config)
        with pytest.raises(BackendError, match="no GPU"):
            backend.run("detect", {"image": np.zeros((1, 32, 40, 3), np.uint8)})
    halves = [options[names[0]].get("trt_fp16_enable") for options in given]
    assert halves == ["1", None]
    assert {o["device_id"] for options in given for o in options.values()} == {"1"}


def test_deformable_convolution_says_which_onnx_runtime_it_needs(tiny_bundle, monkeypatch):
    import onnxruntime

    def refuse(*arguments, **more):
        raise RuntimeError("NOT_IMPLEMENTED: Could not find an implementation for DeformConv(19)")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    monkeypatch.setattr(onnxruntime, "__version__", "1.24.4")
    backend = OnnxRuntimeBackend(tiny_bundle, threads=1)
    with pytest.raises(BackendError, match=r"1\.24\.4 rejects .*1\.25 or later.*grid_sample"):
        backend.run("detect", {"image": np.zeros((1, 32, 40, 3), np.uint8)})


def test_a_session_does_not_hold_the_bytes_of_its_file(tiny_bundle, monkeypatch):
    content = tiny_bundle.read_graph("detect")
    before = sys.getrefcount(content)
    monkeypatch.setattr(type(tiny_bundle), "read_graph", lambda *_: content)
    backend = OnnxRuntimeBackend(tiny_bundle, threads=1)
    backend.run("detect", {"image": np.zeros((1, 32, 40, 3), np.uint8)})
    assert sys.getrefcount(content) == before
