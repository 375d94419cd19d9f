"""OpenVINO gives what ONNX Runtime gives."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from yolact_ros import Segmenter
from yolact_ros.config import SHIPPED_MODELS, BackendConfig, KeyframeConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_ros.runtime.backends.open import open_backend
from yolact_ros.runtime.shipped import shipped_file

openvino = pytest.importorskip("openvino")

from yolact_ros.runtime.backends.openvino import OpenVinoBackend  # noqa: E402


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    video = cv2.VideoCapture(str(shipped_file("models/demo/tabletop.mp4")))
    _, image = video.read()
    video.release()
    return image


@pytest.mark.parametrize("model", SHIPPED_MODELS)
def test_a_shipped_model_finds_the_same_on_both(model, frame):
    with (
        Segmenter.open(model, backend=BackendConfig(threads=1)) as theirs,
        Segmenter.open(model, backend=BackendConfig("openvino", threads=1)) as ours,
    ):
        expected, found = theirs.segment(frame), ours.segment(frame)
    assert ours.backend_name == "OpenVino"
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.mask_scores, expected.mask_scores, atol=1e-4)
    different = sum((a ^ b).sum() for a, b in zip(found.masks, expected.masks, strict=True))
    assert different <= 4 * len(expected)


def test_streams_of_two_cameras_keep_their_features_apart(tiny_video_bundle):
    """Features of one camera survive keyframes of the other, which the same graph runs."""
    backends = OpenVinoBackend(tiny_video_bundle), OnnxRuntimeBackend(tiny_video_bundle)
    images = np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3)).astype(np.uint8)
    config = KeyframeConfig(keyframe_interval=2, warp="none", change_threshold=1.0)
    results = []
    for backend in backends:
        segmenter = Segmenter(backend, tiny_video_bundle.description)
        streams = segmenter.stream(config), segmenter.stream(config)
        results.append([streams[i % 2].detect(image) for i, image in enumerate(images)])
    assert {d.frame_type for d in results[0]} == {"keyframe", "partial"}
    for ours, theirs in zip(*results, strict=True):
        assert ours.frame_type == theirs.frame_type
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2)


def test_outputs_of_one_run_survive_the_next(tiny_bundle):
    backend = OpenVinoBackend(tiny_bundle)
    info = tiny_bundle.graphs["detect"].inputs["image"]
    dark, bright = (np.full(info.shape, value, np.uint8) for value in (0, 200))
    first = backend.run("detect", {"image": dark})
    copies = {name: value.copy() for name, value in first.items()}
    backend.run("detect", {"image": bright})
    for name, value in first.items():
        np.testing.assert_array_equal(value, copies[name])


def test_runs_that_nobody_fetched_yet_survive_the_next_ones(tiny_bundle):
    backend = OpenVinoBackend(tiny_bundle)
    reference = OnnxRuntimeBackend(tiny_bundle, threads=1)
    shape = tiny_bundle.graphs["detect"].inputs["image"].shape
    images = [np.full(shape, value, np.uint8) for value in (0, 90, 200)]
    runs = [backend.submit("detect", {"image": image}) for image in images]
    backend.close()
    for run, image in zip(runs, images, strict=True):
        expected = reference.run("detect", {"image": image})["prototypes"]
        np.testing.assert_allclose(run.fetch()["prototypes"], expected, atol=1e-5)
        assert run.seconds > 0


def test_faults_are_reported(tiny_bundle):
    backend = OpenVinoBackend(tiny_bundle)
    with pytest.raises(BackendError, match="does not have the graph 'keyframe'; it has: detect"):
        backend.run("keyframe", {})
    with pytest.raises(BackendError, match="expects image; it received nothing"):
        backend.run("detect", {})
    with pytest.raises(BackendError, match="OpenVINO runs on: cpu, gpu, npu"):
        OpenVinoBackend(tiny_bundle, provider="cuda")
    with pytest.raises(BackendError, match="ONNX Runtime runs on: cpu, cuda, tensorrt"):
        OnnxRuntimeBackend(tiny_bundle, provider="npu")
    if "NPU" not in openvino.Core().available_devices:
        with pytest.raises(BackendError, match="does not find NPU on this machine"):
            OpenVinoBackend(tiny_bundle, provider="npu")
    with pytest.raises(BackendError, match="precision is 'bf16', which only OpenVINO supports"):
        open_backend(tiny_bundle.folder, BackendConfig(precision="bf16"))


def test_without_the_library_it_says_how_to_install_it(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install 'yolact_ros\[openvino\]'"):
        OpenVinoBackend(tiny_bundle)


def test_deformable_convolution_is_that_of_onnx_runtime(tmp_path):
    torch = pytest.importorskip("torch")
    from small_graphs import VARIANTS

    from yolact_ros.export.to_bundle import export_bundle
    from yolact_ros.model.deform_conv import DeformConv2d
    from yolact_ros.model.weights.checkpoint import initialise_weights, save_checkpoint
    from yolact_ros.model.yolact import Yolact
    from yolact_ros.runtime.bundle import Bundle

    torch.manual_seed(0)
    model = Yolact(VARIANTS["yolact_plus"]).eval()
    initialise_weights(model)
    layers = [layer for layer in model.modules() if isinstance(layer, DeformConv2d)]
    assert layers
    for layer in layers:  # shifts of several pixels, also across the border
        torch.nn.init.normal_(layer.offset_mask.weight, std=0.1)
        torch.nn.init.uniform_(layer.offset_mask.bias, -3, 3)
    save_checkpoint(tmp_path / "plus.pth", model)
    export_bundle(tmp_path / "plus.pth", tmp_path / "plus")
    bundle = Bundle.open(tmp_path / "plus")
    assert b"DeformConv" in bundle.read_graph("detect")
    shape = bundle.graphs["detect"].inputs["image"].shape
    image = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    expected = OnnxRuntimeBackend(bundle, threads=1).run("detect", {"image": image})
    found = OpenVinoBackend(bundle, threads=1).run("detect", {"image": image})
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4 * np.abs(values).max())
