"""The GPU measurement program runs without torch and survives the failure of any part."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from yolact_ros.runtime.backends.tensorrt.driver import Gpu  # noqa: E402
from yolact_ros.runtime.detections import Detections  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "scripts" / "run_on_gpu.py"

# As on a robot: importing torch fails. The first bundle that is timed breaks in the way named.
START = """
import os, runpy, sys
from yolact_ros.runtime.segmenter import Segmenter

class Absent:
    def find_spec(name, *others):
        if name in ("torch", "onnx"):
            raise ImportError(name)

def break_down(segmenter):
    Segmenter.warm_up = warm_up
    if how == "killed":
        os._exit(9)
    raise TypeError("incompatible function arguments")

warm_up, how = Segmenter.warm_up, sys.argv.pop(1)
if how:
    Segmenter.warm_up = break_down
sys.meta_path.insert(0, Absent)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    cv2.imwrite(str(folder / "a.png"), picture)
    return folder


@pytest.fixture
def bundles(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        shutil.copytree(REPOSITORY / "models" / "tabletop", folder)
    return folders


def run(images, *options, broken=""):
    """Run the program; return its exit status and its results."""
    output = images.parent / "out"
    words = [PROGRAM, "--images", images, "-o", output, "--runs", "2", *options]
    result = subprocess.run(
        [sys.executable, "-c", START, broken, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode in (0, 9), result.stderr[-2000:]
    print(result.stdout)
    return result.returncode, json.loads((output / "gpu.json").read_text())


def test_bundles_of_a_pc_are_timed_without_torch_and_past_failures(images, bundles, tmp_path):
    (bundles[0] / "tensorrt-10.3.0-sm87x16.timing").write_bytes(b"times of kernels")
    status, found = run(images, "--bundles", tmp_path / "absent", *bundles, broken="raises")
    assert status == 0
    assert list(found["open_seconds"]) == ["first", "second"]
    (times,) = found["milliseconds"].values()
    assert times["total"] >= times["inference"] > 0
    shared = bundles[1] / "tensorrt-10.3.0-sm87x16.timing"
    assert shared.read_bytes() == b"times of kernels"
    absent, first = found["failures"].items()
    assert "absent" in absent[0] and "absent" in absent[1]
    assert first == ("onnxruntime cpu first", "TypeError: incompatible function arguments")
    assert found["machine"]["cpu"] and found["machine"]["missing"]


def test_what_was_measured_survives_a_kill(images, bundles):
    status, found = run(images, "--bundles", *bundles, broken="killed")
    assert status == 9
    assert list(found["open_seconds"]) == ["first", "second"]
    assert "machine" in found and "milliseconds" not in found


def test_a_quick_run_measures_one_bundle(images, bundles):
    _, found = run(images, "--bundles", *bundles, "--quick")
    assert list(found["open_seconds"]) == ["first"]
    assert list(found["milliseconds"]) == ["onnxruntime cpu first"]
    assert "keyframes" not in found and not found["failures"]


@pytest.mark.parametrize(
    "words, status, text",
    [
        (["--help"], 0, "--quick"),
        (["--images", "photographs"], 2, "give either a checkpoint, or bundles"),
    ],
)
def test_help_and_missing_arguments_explain_the_program(words, status, text):
    result = subprocess.run(
        [sys.executable, PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == status
    assert text in result.stdout + result.stderr


@pytest.fixture(scope="module")
def program():
    """Import the program as a module."""
    specification = importlib.util.spec_from_file_location("run_on_gpu", PROGRAM)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class WithoutOnnxRuntime:
    def find_spec(name, *others):
        if name == "onnxruntime":
            raise ImportError(name)


def test_a_robot_with_tensorrt_does_not_need_onnx_runtime(program, images, tmp_path, monkeypatch):
    gpu = Gpu("Orin", "8.7", 16, True, 0)
    monkeypatch.setattr(program, "find_gpu", lambda: gpu)
    monkeypatch.setattr(program, "import_tensorrt", lambda: Namespace(label="TensorRT 10.3.0"))
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "meta_path", [WithoutOnnxRuntime, *sys.meta_path])
    run = program.GpuRun(Namespace(images=images, output=tmp_path, checkpoint=None))
    run.describe_machine()
    assert list(run.backends) == ["tensorrt"]
    machine = run.results["machine"]
    assert machine["gpu"]["name"] == "Orin" and machine["tensorrt"] == "TensorRT 10.3.0"
    (missing,) = machine["missing"]
    assert "ONNX Runtime is not installed" in missing


@pytest.mark.parametrize("times, faster", [((7.0, 9.0), "host"), ((9.0, 7.0), "graph")])
def test_the_faster_way_to_assemble_masks_is_named(
    program, images, tmp_path, monkeypatch, capsys, times, faster
):
    frames = dict(zip(("host", "graph"), times, strict=True))

    class FakeRun(program.GpuRun):
        def export(self, name, **options):
            return tmp_path / options["masks"]

        def open(self, path):
            return program.contextlib.nullcontext(path.name)

        def note_times(self, name, segmenter):
            row = {"total": frames[segmenter], "inference": 1.0}
            self.results.setdefault("milliseconds", {})[name] = row

    run = FakeRun(Namespace(images=images, output=tmp_path))
    run.time_masks()
    assert run.results["faster_masks"] == faster
    assert f"faster here: --masks {faster}" in capsys.readouterr().out


def filled_boxes(rows):
    """Return detections whose masks fill their boxes (class, x1, y1, x2, y2), best first."""
    rows = np.array(rows)
    scores = np.linspace(0.9, 0.5, len(rows), dtype=np.float32)
    return Detections(
        boxes=rows[:, 1:].astype(np.float32),
        scores=scores,
        mask_scores=scores,
        class_ids=rows[:, 0],
        mask_rois=rows[:, 1:].astype(np.int32),
        masks=tuple(np.ones((y2 - y1, x2 - x1), bool) for _, x1, y1, x2, y2 in rows),
        image_size=(40, 40),
    )


def test_agreement_by_hand(program):
    expected = filled_boxes([(0, 0, 0, 10, 10), (1, 20, 20, 30, 30), (0, 0, 20, 10, 30)])
    found = filled_boxes([(0, 0, 0, 10, 8), (0, 20, 20, 30, 30), (0, 0, 20, 10, 30)])
    row = program.agreement([found], [expected])  # the second is of another class
    assert (row["matched"], row["missed"], row["added"]) == (2, 1, 1)
    assert (row["box_pixels"], row["mask_iou"]) == (2.0, 0.8)
    assert row["mean_mask_iou"] == pytest.approx((0.8 + 1) / 2)
