"""Provide fixtures for several test folders: a backend of plain arrays and tiny bundles."""

from __future__ import annotations

import json
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

# Tests that limit the size of files would otherwise leave truncated bytecode for later processes.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.dont_write_bytecode = True
# Modules that several tests share; the option `pythonpath` is unknown to pytest 6.2.
sys.path.insert(0, str(Path(__file__).parent / "support"))

from yolact_ros.config import FlowConfig, ModelConfig
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.bundle_writer import write_bundle

# With --complete, a test may not be skipped for a missing package, except those of ROS 2 that no
# registry has. Other reasons, e.g. that a wheel cannot be downloaded, remain reasons.
MISSING = ("could not import", "No module named", "not installed", "NOT tested")
ONLY_IN_ROS = ("launch_ros", "launch system", "ROS 2's command line", "vision_msgs")

# Before any test loads torch: threads of OpenMP that spin at barriers make small networks many
# times slower as soon as another process needs a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_addoption(parser):
    parser.addoption(
        "--complete",
        action="store_true",
        help="fail if a test is skipped because a package is missing that a registry has",
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Fail a complete run in which a package is missing or broken."""
    if not session.config.getoption("complete"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reasons = {str(report.longrepr) for report in reporter.stats.get("skipped", ())}
    missing = [
        text
        for text in reasons
        if any(words in text for words in MISSING) and not any(n in text for n in ONLY_IN_ROS)
    ]
    for text in sorted(missing):
        reporter.write_line(f"\n--complete: skipped {text}", red=True)
    if missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


TINY = ModelConfig(name="tiny", classes=("cup", "spoon"), input_size=(32, 40), num_prototypes=1)
TINY_RESCORED = ModelConfig(
    name="tiny_rescored",
    classes=("cup", "spoon"),
    input_size=(256, 256),
    num_prototypes=1,
    mask_rescoring=True,
)


class FakeBackend:
    """Returns given arrays, or computes them from the inputs by a function; records its inputs."""

    on_gpu = False

    def __init__(self, **graphs):
        self.graphs = graphs
        self.calls = []
        self.closed = False

    def run(self, graph, inputs, *, keep=()):
        self.calls.append((graph, dict(inputs)))
        answer = self.graphs[graph]
        return answer(inputs) if callable(answer) else answer

    def close(self):
        self.closed = True


def host_outputs(boxes, class_scores, *, prototypes, coefficients=None):
    """Return the outputs of the graph `detect`; coefficients default to 1."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    if coefficients is None:
        coefficients = np.ones((len(boxes), prototypes.shape[2]))
    return {
        "boxes": boxes,
        "class_scores": np.asarray(class_scores, np.float32).reshape(len(boxes), -1),
        "coefficients": np.asarray(coefficients, np.float32),
        "prototypes": np.asarray(prototypes, np.float32),
    }


def describe(model, *, form="dense", max_detections=100):
    return ModelDescription(model, form, max_detections, "0123456789ab")


@pytest.fixture
def tiny_bundle(tmp_path):
    """Write a bundle that finds one cup and one spoon; its prototype is the blue channel.

    The mask is set where the image is blue: sigmoid((blue - 100) / 10).
    """
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return write_bundle(
        tmp_path / "bundle",
        ModelDescription(TINY, "dense", 10),
        graphs={"detect": detect_model(onnx)},
        source={"checkpoint": "tiny.pth", "sha256": "0" * 64},
        versions={"onnx": onnx.__version__},
    )


@pytest.fixture
def tiny_video_bundle(tmp_path):
    """Write `tiny_bundle` for video; its features are all 1 and do not affect the result."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    features = {"x4": [1, 1, 2, 3], "x5": [1, 1, 1, 2]}
    return write_bundle(
        tmp_path / "video_bundle",
        ModelDescription(TINY, "dense", 10, warps=("dis", "none")),
        graphs={
            "keyframe": detect_model(onnx, leaves=features),
            "non_keyframe_flow": detect_model(onnx, takes={**features, "flow": [1, 2, 2, 3]}),
        },
        source={"checkpoint": "tiny.pth", "sha256": "0" * 64},
        versions={"onnx": onnx.__version__},
    )


@pytest.fixture
def tiny_learned_bundle(tmp_path):
    """Write `tiny_video_bundle` with a learned warp as well."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    features = {"x4": [1, 1, 2, 3], "x5": [1, 1, 1, 2], "lateral": [1, 1, 4, 5]}
    moved = {"x4": features["x4"], "x5": features["x5"], "flow": [1, 2, 2, 3]}
    return write_bundle(
        tmp_path / "learned_bundle",
        ModelDescription(
            replace(TINY, flow=FlowConfig()), "dense", 10, warps=("learned", "dis", "none")
        ),
        graphs={
            "keyframe": detect_model(onnx, leaves=features),
            "non_keyframe": detect_model(onnx, takes=features),
            "non_keyframe_flow": detect_model(onnx, takes=moved),
        },
        source={"checkpoint": "tiny.pth", "sha256": "0" * 64},
        versions={"onnx": onnx.__version__},
    )


def detect_model(onnx, *, takes=types.MappingProxyType({}), leaves=types.MappingProxyType({})):
    """Build the graph `detect`, optionally with further inputs, and outputs of ones, by shape."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "boxes": np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]], np.float32),
        "class_scores": np.array([[0.9, 0.1], [0.2, 0.8]], np.float32),
        "coefficients": np.ones((2, 1), np.float32),
        "dark": np.array(100, np.float32),
        "contrast": np.array(0.1, np.float32),
        "starts": np.array([0, 0, 0], np.int64),
        "ends": np.array([32, 40, 1], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "steps": np.array([4, 4, 1], np.int64),
        "first": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends", "axes", "steps"], ["blue"]),
        helper.make_node("Cast", ["blue"], ["float_blue"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float_blue", "dark"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "contrast"], ["scaled"]),
        helper.make_node("Squeeze", ["scaled", "first"], ["prototypes"]),
    ]
    outputs = {"prototypes": [8, 10, 1]}
    constants |= {name: np.ones(shape, np.float32) for name, shape in leaves.items()}
    for name in ("boxes", "class_scores", "coefficients", *leaves):
        nodes.append(helper.make_node("Identity", [f"{name}_value"], [name]))
        outputs[name] = list(constants[name].shape)
        constants[f"{name}_value"] = constants.pop(name)
    graph = helper.make_graph(
        nodes,
        "detect",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 32, 40, 3]),
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in takes.items()),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture
def tiny():
    """Return this module's fakes and descriptions, because tests cannot import a conftest."""
    return types.SimpleNamespace(
        TINY=TINY,
        TINY_RESCORED=TINY_RESCORED,
        FakeBackend=FakeBackend,
        host_outputs=host_outputs,
        describe=describe,
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> tuple[Path, Path]:
    """Write twelve images, each with a red square and a blue disc, and their annotations."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(12):
        image = random.integers(0, 60, (96, 128, 3), np.uint8)
        x, y = (int(v) for v in random.integers(5, 50, 2))
        cv2.rectangle(image, (x, y), (x + 30, y + 30), (0, 0, 250), -1)
        square = [x, y, x + 31, y, x + 31, y + 31, x, y + 31]
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        disc = np.stack([100 + 15 * np.cos(angles), 60 + 15 * np.sin(angles)], axis=1)
        cv2.fillPoly(image, [disc.astype(np.int32)], (250, 0, 0))
        cv2.imwrite(str(folder / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "height": 96, "width": 128})
        for category, polygon in ((3, square), (7, disc.ravel().tolist())):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": category,
                 "segmentation": [polygon], "iscrowd": 0}
            )  # fmt: skip
    path = folder / "instances.json"
    path.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 3, "name": "square"}, {"id": 7, "name": "disc"}],
            }
        )
    )
    return path, folder
