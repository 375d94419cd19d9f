"""The libraries that run a model send no reports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime")


def test_running_a_model_writes_nothing_into_the_home_folder(tmp_path):
    """ONNX Runtime would keep a device id and a database of reports there, and send them."""
    program = (
        "import numpy, yolact_ros\n"
        "yolact_ros.Segmenter.open('tabletop').segment(numpy.zeros((64, 64, 3), numpy.uint8))"
    )
    unset = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")  # the library is silent under CI
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    words = [sys.executable, "-c", program]
    subprocess.run(words, check=True, timeout=120, env={**kept, "HOME": str(tmp_path)})
    assert list(tmp_path.rglob("*")) == []
