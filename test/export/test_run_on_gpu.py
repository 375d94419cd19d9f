"""The GPU measurement program runs without torch and survives the failure of any part."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

REPOSITORY = Path(__file__).resolve().parents[2]

# As on a robot: importing torch fails.
PROGRAM = """
import runpy, sys
sys.modules["torch"] = sys.modules["onnx"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_bundles_of_a_pc_are_timed_without_torch_and_past_failures(tmp_path):
    (tmp_path / "images").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "a.png"), picture)
    program = REPOSITORY / "scripts" / "run_on_gpu.py"
    bundles = [tmp_path / "first", tmp_path / "second"]
    for bundle in bundles:
        shutil.copytree(REPOSITORY / "models" / "tabletop", bundle)
    (bundles[0] / "tensorrt-10.3.0-sm87x16.timing").write_bytes(b"times of kernels")
    options = ["--bundles", tmp_path / "absent", *bundles]
    options += ["--images", tmp_path / "images", "-o", tmp_path / "out", "--runs", "2"]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, [program, *options])],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert list(found["open_seconds"]) == ["first", "second"]
    for times in found["milliseconds"].values():
        assert times["frame"] >= times["inference"] > 0
    shared = bundles[1] / "tensorrt-10.3.0-sm87x16.timing"
    assert shared.read_bytes() == b"times of kernels"
    ((what, why),) = found["failures"].items()
    assert "absent" in what and "absent" in why
    assert "machine" in found


def test_a_checkpoint_or_bundles_are_required(tmp_path):
    program = REPOSITORY / "scripts" / "run_on_gpu.py"
    result = subprocess.run(
        [sys.executable, program, "--images", tmp_path],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2
    assert "name a checkpoint, or bundles" in result.stderr
