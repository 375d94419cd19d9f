"""Images that a bundle is calibrated with."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolact_ros.cli.quantize import calibration_images
from yolact_ros.errors import BundleError, DatasetError


def test_calibration_images_are_spread_over_all(tiny, tmp_path):
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    tensors = calibration_images([tmp_path], tiny.TINY, count=3)
    assert [int(tensor[0, 0, 0, 0]) for tensor in tensors] == [0, 2, 4]


def test_an_image_that_cannot_be_decoded_is_named(tiny, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BundleError, match=r"broken\.png.*Take it out"):
        calibration_images([tmp_path], tiny.TINY, count=1)


def test_a_folder_without_images_is_refused(tiny, tmp_path):
    with pytest.raises(DatasetError, match="holds no images"):
        calibration_images([tmp_path], tiny.TINY, count=1)
