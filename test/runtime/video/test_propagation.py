"""Propagated detections follow a known motion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolact_ros.runtime.masks import SoftMasks
from yolact_ros.runtime.postprocess import Selection
from yolact_ros.runtime.video.propagation import PropagatedDetections

SIZE = (80, 120)  # of grey image and prototypes
MASKS = ((20, 15, 44, 35), (60, 30, 90, 60), (70, 5, 75, 9))  # cells x1 y1 x2 y2 of ellipses


def selection(boxes):
    count = len(boxes)
    return Selection(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        class_ids=np.arange(count),
        coefficients=np.zeros((count, 2), np.float32),
        mask_scores=np.ones(count, np.float32),
    )


def ellipse(x1, y1, x2, y2):
    """Return (80, 120) of 0 and 1 with an ellipse that fills a box given in cells."""
    x, y = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5)
    u, v = (2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1)
    return (u**2 + v**2 <= 1).astype(np.float32)


def found():
    """Return three ellipses and the scene that contains them."""
    boxes = [np.array(m) / np.tile(SIZE[::-1], 2) for m in MASKS]
    values = tuple(
        np.ascontiguousarray(ellipse(*m)[m[1] : m[3], m[0] : m[2]]) * np.float32(0.9)
        for m in MASKS
    )
    return selection(boxes), SoftMasks(np.array(MASKS), values, SIZE)


def scene():
    noise = np.random.default_rng(0).uniform(0, 255, (20, 30)).astype(np.float32)
    grey = cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return grey.clip(0, 255).astype(np.uint8)


def moving(image, step):
    """Return image number `step` of a slow zoom with rotation and drift, and its (2, 3) map."""
    motion = cv2.getRotationMatrix2D((60, 40), 0.8 * step, 1 + 0.008 * step)
    motion[:, 2] += 0.9 * step, -0.5 * step
    moved = cv2.warpAffine(image, motion, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)
    return moved, motion


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def test_masks_and_boxes_follow_rotation_zoom_and_drift():
    chosen, soft = found()
    grey = scene()
    carried = PropagatedDetections(chosen, soft, grey=grey)
    for step in range(1, 5):
        current, motion = moving(grey, step)
        now, masks = carried.propagate(current)
    assert now.scores is chosen.scores
    assert now.boxes.dtype == np.float32
    for i, (old, mask) in enumerate(zip(MASKS, masks.dense(), strict=True)):
        truth = cv2.warpAffine(ellipse(*old), motion, SIZE[::-1]) > 0.5
        still = iou(ellipse(*old) > 0.5, truth)
        assert iou(mask > 0.5, truth) > (0.9 if i < 2 else 0.6) > still
        rows, columns = np.nonzero(truth)
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(now.boxes[i] * np.tile(SIZE[::-1], 2) - edges).max() < 1.5


def test_in_a_still_scene_nothing_moves():
    chosen, soft = found()
    carried = PropagatedDetections(chosen, soft, grey=scene())
    for _ in range(3):
        now, masks = carried.propagate(scene())
    np.testing.assert_allclose(now.boxes, chosen.boxes, atol=1e-3)
    np.testing.assert_allclose(masks.dense(), soft.dense(), atol=0.05)


def test_an_object_that_leaves_the_image_has_hardly_any_mask():
    chosen, soft = found()
    grey = scene()
    carried = PropagatedDetections(chosen, soft, grey=grey)
    for step in range(1, 40):
        shift = np.float64([[1, 0, -2 * step], [0, 1, 0]])
        current = cv2.warpAffine(grey, shift, SIZE[::-1], borderMode=cv2.BORDER_WRAP)
        now, masks = carried.propagate(current)
        assert masks.dense().shape == (3, *SIZE)
    # Flow at the border is uncertain: a sliver may stay there.
    assert masks.dense()[0].sum() < 0.1 * soft.dense()[0].sum()
    assert np.isfinite(now.boxes).all()


@pytest.mark.parametrize("cells", [np.zeros((0, 4)), [[7, 7, 7, 9]]], ids=["none", "no area"])
def test_no_detections_and_masks_without_area_are_propagated(cells):
    cells = np.array(cells, np.int64)
    values = tuple(np.zeros((y2 - y1, x2 - x1), np.float32) for x1, y1, x2, y2 in cells)
    chosen = selection(np.zeros((len(cells), 4)))
    carried = PropagatedDetections(chosen, SoftMasks(cells, values, SIZE), grey=scene())
    now, masks = carried.propagate(scene())
    assert len(now) == len(masks.values) == len(cells)
    assert not masks.dense().any()
