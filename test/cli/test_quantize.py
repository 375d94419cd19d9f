"""Calibration images are taken evenly from all images, and bad ones are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolact_ros.cli.main import main
from yolact_ros.cli.quantize import calibration_images
from yolact_ros.errors import BundleError, DatasetError
from yolact_ros.runtime.shipped import shipped_file


def test_calibration_images_are_spread_evenly(tiny, tmp_path):
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    tensors = calibration_images([tmp_path], tiny.TINY, count=3)
    assert [int(tensor[0, 0, 0, 0]) for tensor in tensors] == [0, 2, 4]


def test_an_image_that_cannot_be_decoded_is_named(tiny, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BundleError, match=r"broken\.png.*Remove it"):
        calibration_images([tmp_path], tiny.TINY, count=1)


def test_a_folder_without_images_is_refused(tiny, tmp_path):
    with pytest.raises(DatasetError, match="contains no images"):
        calibration_images([tmp_path], tiny.TINY, count=1)


@pytest.mark.parametrize(
    "flag, value",
    [("count", "0"), ("count", "-1"), ("float-above", "nan"), ("float-above", "inf")],
)
def test_a_number_out_of_range_is_named(tmp_path, capsys, flag, value):
    words = ["--images", str(tmp_path), "-o", str(tmp_path / "int8"), f"--{flag}={value}"]
    with pytest.raises(SystemExit) as ended:
        main(["quantize", "tabletop", *words])
    assert ended.value.code == 2
    assert f"--{flag}: '{value}' is not a" in capsys.readouterr().err


def test_the_shipped_model_is_quantized_where_torch_is_not_installed(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from yolact_ros.runtime.bundle import Bundle

    words = ["quantize", "tabletop", "-o", str(tmp_path / "int8")]
    words += [
        "--images",
        str(shipped_file("models/demo/tabletop.mp4")),
        "--count",
        "1",
        "--float-layers",
    ]
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'pycocotools'): sys.modules[name] = None\n"
        "from yolact_ros.cli.main import main\n"
        f"raise SystemExit(main({words!r}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert Bundle.open(tmp_path / "int8").description.precision == "int8"
