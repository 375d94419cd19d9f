"""The true motion of keyframes made from stills leads from each pixel to where it was."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")

from yolact_ros.datasets.coco import Sample  # noqa: E402
from yolact_ros.train.feature_transform.pairs import (  # noqa: E402
    MotionConfig,
    move_points,
    move_still,
    random_homography,
)

STILL = MotionConfig(shift=0, rotation=0, zoom=0, tilt=0, instance_probability=0, instance_shift=0)


def smooth_sample(masks: int = 2) -> Sample:
    """Return a smooth picture with two rectangles of other colours."""
    rows, columns = np.mgrid[0:90, 0:120]
    image = np.stack([2 * columns, 2 * rows, columns + rows], axis=-1).astype(np.uint8)
    boxes = np.array([[15, 20, 45, 50], [70, 30, 100, 70]], np.float32)[:masks]
    stack = np.zeros((masks, 90, 120), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(stack, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = 1
        image[y1:y2, x1:x2] //= 2
    ids = np.zeros(masks, np.int64)
    return Sample(image, boxes, stack, ids, ids.astype(bool), 1, "a.png")


def fetch(still, sample):
    """Sample the keyframe's colours where the flow says that each pixel was, float32."""
    height, width = sample.image.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    x, y = still.flow + grid
    return cv2.remap(still.keyframe, x, y, cv2.INTER_LINEAR).astype(np.float32)


def test_without_motion_the_keyframe_is_the_picture():
    sample = smooth_sample()
    still = move_still(sample, STILL, random=np.random.default_rng(0))
    np.testing.assert_array_equal(still.keyframe, sample.image)
    assert not still.flow.any()
    assert still.known.all()


@pytest.mark.parametrize("seed", range(6))
def test_the_flow_leads_to_the_same_colours_in_the_keyframe(seed):
    sample = smooth_sample()
    config = MotionConfig(instance_probability=0.7)
    still = move_still(sample, config, random=np.random.default_rng(seed))
    assert still.flow.shape == (2, 90, 120)
    assert still.flow.dtype == np.float32
    difference = np.abs(fetch(still, sample) - sample.image).max(axis=2)
    # Edges are mixed of two things that move apart.
    edges = np.zeros((90, 120), np.uint8)
    for mask in sample.masks:
        edges |= cv2.dilate(mask, np.ones((7, 7), np.uint8)) - cv2.erode(mask, np.ones((7, 7)))
    judged = still.known & (edges == 0)
    judged[[0, -1]] = judged[:, [0, -1]] = False
    assert judged.mean() > 0.4
    # Where a thing that moved by itself ends in the keyframe, its colour is mixed as well.
    assert np.quantile(difference[judged], 0.9) <= 3


def test_background_that_a_moving_instance_covers_is_unknown():
    sample = smooth_sample(masks=1)
    config = replace(STILL, instance_probability=1.0, instance_shift=0.2)
    still = move_still(sample, config, random=np.random.default_rng(3))
    inside = sample.masks[0] > 0
    shifts = np.unique(still.flow[:, inside].round(3), axis=1)
    assert shifts.shape == (2, 1)  # the rectangle moves as one
    assert np.abs(shifts).max() > 3
    assert not still.flow[:, ~inside].any()
    assert still.known[inside].mean() > 0.9
    x, y = shifts[:, 0]
    moved = cv2.warpAffine(sample.masks[0], np.array([[1, 0, x], [0, 1, y]]), (120, 90)) > 0
    covered = moved & ~inside
    core = cv2.erode(covered.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert core.any()
    assert not still.known[core].any()


def test_the_area_outside_the_keyframe_is_unknown():
    sample = smooth_sample(masks=0)
    config = replace(STILL, shift=0.3)
    still = move_still(sample, config, random=np.random.default_rng(1))
    x, y = still.flow[:, 0, 0]
    columns, rows = np.meshgrid(np.arange(120) + x, np.arange(90) + y)
    clear = (columns > 0) & (rows > 0) & (columns < 119) & (rows < 89)
    assert still.known[clear].all()
    outside = (columns < -1) | (rows < -1) | (columns > 120) | (rows > 90)
    assert outside.any()
    assert not still.known[outside].any()


def test_a_picture_without_instances_moves_rigidly():
    sample = smooth_sample(masks=0)
    camera = random_homography((90, 120), MotionConfig(), random=np.random.default_rng(5))
    still = move_still(sample, MotionConfig(), random=np.random.default_rng(5))
    for x, y in [(0, 0), (60, 10), (119, 89)]:
        expected = camera @ [x, y, 1]
        expected = expected[:2] / expected[2] - (x, y)
        np.testing.assert_allclose(still.flow[:, y, x], expected, atol=1e-4)
        np.testing.assert_allclose(
            move_points(camera, np.array([[x, y]]))[0] - (x, y), expected, atol=1e-9
        )


def test_the_same_generator_gives_the_same_pair():
    sample = smooth_sample()
    pair = [move_still(sample, MotionConfig(), random=np.random.default_rng(7)) for _ in range(2)]
    np.testing.assert_array_equal(pair[0].keyframe, pair[1].keyframe)
    np.testing.assert_array_equal(pair[0].flow, pair[1].flow)
