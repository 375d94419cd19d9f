"""OpenVINO gives the results of ONNX Runtime."""

from __future__ import annotations

import hashlib
import sys

import cv2
import numpy as np
import pytest
from squares import KEYFRAME_GRAPHS, write_squares

from yolact_ros import Segmenter
from yolact_ros.config import SHIPPED_MODELS, BackendConfig, KeyframeConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_ros.runtime.backends.open import open_backend
from yolact_ros.runtime.bundle import Bundle
from yolact_ros.runtime.shipped import shipped_file
from yolact_ros.runtime.stream import submit_together

openvino = pytest.importorskip("openvino")

from yolact_ros.runtime.backends.openvino import OpenVinoBackend  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the folder in which compiled graphs are stored."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "yolact_ros" / "openvino"


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
    """Features of one camera survive keyframes of the other, which run the same graph."""
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


def test_streams_that_share_runs_have_their_own_keyframes(tmp_path):
    """Between keyframes, boxes are those of the keyframe, so mixed-up cameras would show."""
    folder = write_squares(tmp_path / "squares", KEYFRAME_GRAPHS, form="with_nms", batch=2)
    config = KeyframeConfig(keyframe_interval=3, warp="none", change_threshold=1.0)
    edges, partial = {}, 0
    with Segmenter.open(folder, backend=BackendConfig("openvino", threads=1)) as segmenter:
        streams = [segmenter.stream(config) for _ in range(3)]
        for step in range(9):
            frames = []
            for camera in [step % 3, (step + 1) % 3][: 1 if step == 4 else 2]:
                image = np.zeros((64, 64, 3), np.uint8)
                image[16:48, 8 * camera + step :][:, :32, 0] = 255
                frames.append((camera, streams[camera].prepare(image)))
            submit_together([(streams[camera], frame) for camera, frame in frames])
            for camera, frame in frames:
                streams[camera].fetch(frame)
                found = streams[camera].finish(frame)
                if found.frame_type == "keyframe":
                    edges[camera] = 8 * camera + step
                else:
                    partial += 1
                    assert edges[camera] != 8 * camera + step
                np.testing.assert_allclose(found.boxes[0, 0], edges[camera], atol=1e-4)
    assert len(set(edges.values())) == 3 and partial > 8


def test_outputs_of_one_run_survive_the_next(tiny_bundle):
    backend = OpenVinoBackend(tiny_bundle)
    info = tiny_bundle.graphs["detect"].inputs["image"]
    dark, bright = (np.full(info.shape, value, np.uint8) for value in (0, 200))
    first = backend.run("detect", {"image": dark})
    copies = {name: value.copy() for name, value in first.items()}
    backend.run("detect", {"image": bright})
    for name, value in first.items():
        np.testing.assert_array_equal(value, copies[name])


def test_outputs_to_be_kept_stay_in_the_library_and_serve_later_runs(tiny_video_bundle):
    """The graph `non_keyframe_flow` receives the tensors that `keyframe` wrote, not copies."""
    backend = OpenVinoBackend(tiny_video_bundle)
    reference = OnnxRuntimeBackend(tiny_video_bundle, threads=1)
    features = ("x4", "x5")
    shape = tiny_video_bundle.graphs["keyframe"].inputs["image"].shape
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    flow = np.zeros((1, 2, 2, 3), np.float32)
    found = []
    for library in (backend, reference):
        kept = library.run("keyframe", {"image": image}, keep=features)
        assert not any(isinstance(kept[name], np.ndarray) for name in features)
        library.run("keyframe", {"image": image // 2}, keep=features)  # leaves them alone
        given = {"image": image, "flow": flow, **{name: kept[name] for name in features}}
        found.append(library.run("non_keyframe_flow", given))
    for name, values in found[1].items():
        np.testing.assert_allclose(found[0][name], values, atol=1e-5)
    with pytest.raises(BackendError, match=r"'x4' of graph 'non_keyframe_flow' has shape"):
        wrong = openvino.Tensor(np.zeros((1, 1, 2, 4), np.float32))
        backend.run("non_keyframe_flow", {"image": image, "flow": flow, "x4": wrong, "x5": wrong})


def test_compiled_graphs_are_stored_and_found_again(tiny_bundle, cache, caplog):
    """A stored graph gives equal results, even with other threads; a damaged one is recompiled."""
    caplog.set_level("INFO")
    shape = tiny_bundle.graphs["detect"].inputs["image"].shape
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)

    def run(**settings):
        backend = OpenVinoBackend(tiny_bundle, **settings)
        found = backend.run("detect", {"image": image})
        backend.close()
        return found

    expected = run(threads=1)
    (stored,) = cache.iterdir()
    content = stored.read_bytes()
    for damaged in (content, content[:-1], content[:10], b"", content[:40] + b"?" + content[41:]):
        stored.write_bytes(damaged)
        for name, values in run(threads=2).items():
            np.testing.assert_array_equal(values, expected[name])
        written = stored.read_bytes()
        assert hashlib.sha256(written[32:]).digest() == written[:32]
    # The content is as it was written, but this version of the library does not read it.
    stored.write_bytes(hashlib.sha256(b"other").digest() + b"other")
    run()
    assert f"Compiling the graph 'detect' again, not reading {stored}" in caplog.text
    run(precision="f16")
    assert len(list(cache.iterdir())) == 2


def test_a_stored_graph_is_what_runs(tiny_bundle, tiny_video_bundle, cache):
    """The file is really read, because a file of another graph gives that graph's outputs."""
    OpenVinoBackend(tiny_bundle).run("detect", {"image": np.zeros((1, 32, 40, 3), np.uint8)})
    (ours,) = cache.iterdir()
    OpenVinoBackend(tiny_video_bundle)._load("keyframe")
    (other,) = set(cache.iterdir()) - {ours}
    ours.write_bytes(other.read_bytes())
    outputs = OpenVinoBackend(tiny_bundle)._load("detect").outputs
    assert {"x4", "x5"} <= {name for output in outputs for name in output.names}


def test_it_runs_without_a_cache(tiny_bundle, cache, caplog):
    cache.parent.parent.write_text("a file in place of the folder")
    caplog.set_level("INFO")
    backend = OpenVinoBackend(tiny_bundle)
    backend.run("detect", {"image": np.zeros((1, 32, 40, 3), np.uint8)})
    assert "The compiled graph 'detect' cannot be stored" in caplog.text


def test_auto_selects_the_cpu_without_a_gpu(tiny_bundle):
    if "GPU" in openvino.Core().available_devices:
        pytest.skip("this machine has a GPU that OpenVINO finds")
    backend, _ = open_backend(tiny_bundle.folder, BackendConfig("openvino", provider="auto"))
    assert not backend.on_gpu
    assert backend.run("detect", {"image": np.zeros((1, 32, 40, 3), np.uint8)})


def test_unfetched_runs_survive_the_next_ones(tiny_bundle):
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
    with pytest.raises(BackendError, match="OpenVINO runs on: cpu, gpu, npu, auto"):
        OpenVinoBackend(tiny_bundle, provider="cuda")
    with pytest.raises(BackendError, match="ONNX Runtime runs on: cpu, cuda, tensorrt"):
        OnnxRuntimeBackend(tiny_bundle, provider="npu")
    for device in {"GPU", "NPU"} - set(openvino.Core().available_devices):
        with pytest.raises(BackendError, match=f"does not find {device} on this machine"):
            OpenVinoBackend(tiny_bundle, provider=device.lower())
    with pytest.raises(BackendError, match="precision is 'bf16'. Only backend openvino supports"):
        open_backend(tiny_bundle.folder, BackendConfig(precision="bf16"))


def test_the_error_without_the_library_says_how_to_install_it(tiny_bundle, monkeypatch):
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
