"""Every shipped model is run on three photographs, which test/data/README.md describes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import yolact_ros  # noqa: E402
from yolact_ros.config import SHIPPED_MODELS  # noqa: E402

DATA = Path(__file__).resolve().parents[1] / "data"
PHOTOGRAPHS = ("coffee", "astronaut", "chelsea")


def photograph(name):
    image = cv2.imread(str(DATA / f"{name}.jpg"))
    assert image is not None
    return image


@pytest.mark.parametrize("model", SHIPPED_MODELS)
def test_every_shipped_model_reads_photographs_of_any_size(model):
    with yolact_ros.Segmenter.open(model) as segmenter:
        classes = segmenter.description.model.classes
        for name in PHOTOGRAPHS:
            image = photograph(name)
            height, width = image.shape[:2]
            found = segmenter.segment(image)
            assert found.image_size == (height, width)
            assert set(found.class_ids.tolist()) <= set(range(len(classes)))
            assert np.isfinite(found.boxes).all()
            for i in range(len(found)):
                x1, y1, x2, y2 = found.mask_rois[i].tolist()
                assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
                assert found.masks[i].shape == (y2 - y1, x2 - x1)


def test_the_everyday_model_finds_the_astronaut():
    with yolact_ros.Segmenter.open("everyday") as segmenter:
        found = segmenter.segment(photograph("astronaut"))
        names = [segmenter.description.model.classes[i] for i in found.class_ids]
    assert names.count("person") == 1
    mask = found[names.index("person")].mask
    face, shoulder = mask[60:150, 190:250], mask[300:480, 120:280]
    shuttle, sky = mask[20:200, 380:500], mask[20:150, 10:120]
    assert face.mean() > 0.9 and shoulder.mean() > 0.4
    assert shuttle.mean() < 0.1 and sky.mean() < 0.1


def test_the_everyday_model_finds_the_cup_of_coffee():
    with yolact_ros.Segmenter.open("everyday") as segmenter:
        found = segmenter.segment(photograph("coffee"))
        names = [segmenter.description.model.classes[i] for i in found.class_ids]
    assert names.count("cup") == 1
    x1, y1, x2, y2 = found.boxes[names.index("cup")]
    # The box must enclose the inside of the cup, whose outline was measured by hand.
    assert x1 < 220 and x2 > 380 and y1 < 80 and y2 > 220
