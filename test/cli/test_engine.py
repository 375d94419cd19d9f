"""`yolact engine` compiles a bundle of one small graph with TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tqdm

from yolact_ros.cli.engine import _with_bar
from yolact_ros.cli.main import main
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt import build as build_module
from yolact_ros.runtime.backends.tensorrt import cache as open_module
from yolact_ros.runtime.backends.tensorrt import driver as gpu_module
from yolact_ros.runtime.backends.tensorrt import library as library_module
from yolact_ros.runtime.backends.tensorrt.build import BuildSettings
from yolact_ros.runtime.backends.tensorrt.cache import LOG, Engine
from yolact_ros.runtime.backends.tensorrt.driver import Gpu
from yolact_ros.runtime.backends.tensorrt.files import engine_identity, read_engine
from yolact_ros.runtime.backends.tensorrt.library import TensorRt
from yolact_ros.runtime.bundle import Bundle, ModelDescription
from yolact_ros.runtime.bundle_writer import write_bundle

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def graph_of(seed):
    """Return an ONNX model that computes the tensors of finished detections by a convolution."""
    weight = np.random.default_rng(seed).normal(size=(4, 3, 32, 40)).astype(np.float32)
    numbers = {"four": [1, 4], "one": [1], "two": [1, 1], "three": [1, 1, 1], "zero": [0]}
    node = helper.make_node
    outputs = {"boxes": (1, 4), "scores": (1,), "mask_scores": (1,)}
    outputs |= {"coefficients": (1, 1), "prototypes": (1, 1, 1)}
    graph = helper.make_graph(
        [
            node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            node("Conv", ["planes", "w"], ["sums"]),
            node("Reshape", ["sums", "four"], ["boxes"]),
            node("Slice", ["boxes", "zero", "one", "one"], ["first"]),
            node("Reshape", ["first", "one"], ["scores"]),
            node("Reshape", ["first", "one"], ["mask_scores"]),
            node("Reshape", ["first", "two"], ["coefficients"]),
            node("Reshape", ["first", "three"], ["prototypes"]),
            node("Cast", ["scores"], ["class_ids"], to=TensorProto.INT64),
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, 32, 40, 3))],
        [
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()),
            helper.make_tensor_value_info("class_ids", TensorProto.INT64, (1,)),
        ],
        [
            numpy_helper.from_array(weight, "w"),
            *(numpy_helper.from_array(np.array(v, np.int64), n) for n, v in numbers.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def write(folder, tiny, *, seed=0, target="tensorrt"):
    return write_bundle(
        folder,
        ModelDescription(tiny.TINY, "with_nms", 10, target=target),
        graphs={"detect": graph_of(seed)},
        source={},
        versions={},
    )


@pytest.fixture
def bundle(tiny, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    return write(tmp_path / "bundle", tiny)


def engine(bundle, *more):
    return main(["engine", str(bundle.folder), "--library", "tensorrt_rtx", *more])


def test_engines_are_built_once_for_each_gpu(bundle, capsys):
    assert engine(bundle, "--target", "7.5,8.9") == 0
    first = capsys.readouterr().out
    assert first.count(", built") == 2
    assert engine(bundle, "--target", "7.5,8.9") == 0
    assert capsys.readouterr().out.count("already exists") == 2
    assert engine(bundle, "--target", "8.9", "--rebuild") == 0
    assert capsys.readouterr().out.count(", built") == 1
    paths = sorted(bundle.folder.glob("*.engine"))
    assert len(paths) == 2
    version = first.split()[1].strip(",")
    for path, capability in zip(paths, ("7.5", "8.9"), strict=True):
        identity = engine_identity(
            bundle,
            "detect",
            library="tensorrt_rtx",
            library_version=version,
            gpu=Gpu("", capability),
        )
        assert len(read_engine(path, identity)) > 1000
        sidecar = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert sidecar["identity"]["compute_capability"] == capability


def test_an_engine_of_an_older_graph_is_not_used(bundle, tiny, capsys):
    assert engine(bundle, "--target", "8.9") == 0
    write(bundle.folder, tiny, seed=1)
    assert engine(Bundle.open(bundle.folder), "--target", "8.9") == 0
    assert capsys.readouterr().out.count(", built") == 2
    assert len(list(bundle.folder.glob("*.engine"))) == 1


def test_a_tampered_engine_is_built_again(bundle, capsys):
    assert engine(bundle, "--target", "8.9") == 0
    (path,) = bundle.folder.glob("*.engine")
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert engine(bundle, "--target", "8.9") == 0
    assert capsys.readouterr().out.count(", built") == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (["--target", "8.7"], "does not support compute capability 8.7; expected some of: 7.5"),
        (["--target", ","], "expected some of"),
    ],
)
def test_impossible_options_are_reported(bundle, capsys, options, message):
    assert engine(bundle, *options) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert list(bundle.folder.glob("*.engine")) == []


def test_a_workspace_without_memory_is_refused(bundle, capsys):
    with pytest.raises(SystemExit) as ended:
        engine(bundle, "--workspace", "0")
    assert ended.value.code == 2
    assert "--workspace: '0' is not an integer" in capsys.readouterr().err


def test_a_machine_without_a_gpu_gets_an_error(bundle, capsys, monkeypatch):
    monkeypatch.setattr(
        "yolact_ros.runtime.backends.tensorrt.driver.DRIVER", "libno-such-driver.so.1"
    )
    assert engine(bundle) == 1
    assert "No GPU" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def package_log():
    """Restore the level that the command sets."""
    log = logging.getLogger("yolact_ros")
    level = log.level
    yield
    log.setLevel(level)


@pytest.mark.parametrize(
    "options, index, expected",
    [
        ([], 0, BuildSettings(1000, Path("tensorrt-10.3.0-sm87x8.timing"))),
        (
            ["--device", "1", "--workspace", "64"],
            1,
            BuildSettings(64, Path("tensorrt-10.3.0-sm87x8.timing")),
        ),
    ],
    ids=["default", "given"],
)
def test_options_reach_the_build_and_its_memory_is_logged(
    bundle, monkeypatch, caplog, options, index, expected
):
    built = []

    def open_engine(bundle, graph, *, gpu, settings, **_):
        built.append((gpu.index, settings))
        LOG.info("Building the engine of 'detect' took up to 30 MiB")
        return Engine(b"", bundle.folder / "detect.engine", True)

    monkeypatch.setattr(open_module, "open_engine", open_engine)
    monkeypatch.setattr(build_module, "default_workspace", lambda gpu: 1000)
    monkeypatch.setattr(gpu_module, "find_gpu", lambda index: Gpu("Orin", "8.7", 8, True, index))
    full = TensorRt("tensorrt", "10.3.0", None)
    monkeypatch.setattr(library_module, "import_tensorrt", lambda name: full)
    assert main(["engine", str(bundle.folder), *options]) == 0
    # Beside the engines.
    expected = replace(expected, timing_cache=bundle.folder / expected.timing_cache)
    assert built == [(index, expected)]
    assert "took up to 30 MiB" in caplog.text


def test_an_interrupt_stops_the_build(monkeypatch):
    stopped = threading.Event()

    def build(progress):
        while progress(0.5):
            time.sleep(0.01)
        stopped.set()
        raise BackendError("The build was stopped.")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tqdm.tqdm, "update", interrupt)  # in the thread that Ctrl-C interrupts
    with pytest.raises(KeyboardInterrupt):
        _with_bar(build, "detect")
    assert stopped.wait(20)


def test_a_bundle_for_onnx_runtime_is_refused(tiny, tmp_path, capsys):
    bundle = write(tmp_path / "bundle", tiny, target="onnxruntime")
    assert engine(bundle) == 1
    assert "was exported for onnxruntime" in capsys.readouterr().err
