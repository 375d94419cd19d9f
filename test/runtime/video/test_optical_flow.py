"""Optical flow matches known shifts and has the form that the graph requires."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from yolact_ros.runtime.video.optical_flow import (
    OpticalFlow,
    flow_at_cells,
    flow_change,
    grey_difference,
    grey_image,
)
from yolact_ros.variants import YOLACT_RESNET50

MODEL = replace(YOLACT_RESNET50, input_size=(320, 480))


def texture(height, width, seed=0):
    """Return smooth random grey."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 8 + 2, width // 8 + 2))
    large = cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return large.clip(0, 255).astype(np.uint8)


def shifted_pair(dx, dy, size=(80, 120)):
    """Return an image and its keyframe, where pixel (x, y) was at (x + dx, y + dy)."""
    scene = texture(size[0] + 40, size[1] + 40)
    keyframe = scene[20 : 20 + size[0], 20 : 20 + size[1]]
    current = scene[20 + dy : 20 + dy + size[0], 20 + dx : 20 + dx + size[1]]
    return np.ascontiguousarray(current), np.ascontiguousarray(keyframe)


@pytest.mark.parametrize("dx, dy", [(0, 0), (5, 0), (0, -4), (-3, 6)])
def test_flow_points_from_the_current_image_into_the_keyframe(dx, dy):
    flow = OpticalFlow().between(*shifted_pair(dx, dy))
    inner = flow[12:-12, 12:-12]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [dx, dy], atol=0.15)
    assert np.abs(inner - [dx, dy]).mean() < 0.3


@pytest.mark.parametrize("size", [(320, 480), (550, 550), (97, 133), (32, 32)])
def test_a_constant_flow_arrives_in_pixels_of_the_input(size):
    model = replace(MODEL, input_size=size)
    grey = grey_image(np.zeros((1, *size, 3), np.uint8))
    flow = np.broadcast_to(np.float32([2, -3]), (*grey.shape, 2)).copy()
    cells = flow_at_cells(flow, model)
    assert cells.shape == (1, 2, *model.feature_sizes[1])
    assert cells.dtype == np.float32
    np.testing.assert_allclose(cells[0, 0], 2 * size[1] / grey.shape[1], rtol=1e-5)
    np.testing.assert_allclose(cells[0, 1], -3 * size[0] / grey.shape[0], rtol=1e-5)


def test_a_cell_gets_the_flow_of_its_pixels():
    # x flow that grows by 0.1 with each grey pixel: cell i, centred on pixel 16 i of the input,
    # whose grey position is (16 i + 0.5) / 4 - 0.5, gets a tenth of that, times 4.
    columns = np.arange(120, dtype=np.float32)
    flow = np.zeros((80, 120, 2), np.float32)
    flow[..., 0] = 0.1 * columns
    cells = flow_at_cells(flow, MODEL)
    i = np.arange(30)
    expected = 0.4 * ((16 * i + 0.5) / 4 - 0.5)
    np.testing.assert_allclose(
        cells[0, 0, :, 1:-1], np.tile(expected, (20, 1))[:, 1:-1], atol=0.02
    )
    assert not cells[0, 1].any()


@pytest.mark.parametrize("size", [(550, 550), (320, 480), (40, 33)])
def test_grey_images_are_a_quarter_of_the_input_but_large_enough_for_flow(size):
    grey = grey_image(np.full((1, *size, 3), 90, np.uint8))
    assert grey.shape == tuple(max(16, round(side / 4)) for side in size)
    assert (grey == 90).all()
    assert not OpticalFlow().between(grey, grey).any()


def test_grey_difference_by_hand():
    first = np.array([[0, 0], [0, 102]], np.uint8)
    # Differences 0, 0, 0, 102; their mean 25.5; distances from it 25.5 three times and 76.5.
    assert grey_difference(first, np.zeros_like(first)) == pytest.approx(38.25 / 255)
    assert grey_difference(first, first) == 0


def test_a_change_of_exposure_is_ignored():
    scene = (texture(40, 60) // 2).astype(np.uint8)
    assert grey_difference(scene + 50, scene) == pytest.approx(0, abs=1e-6)


def test_the_change_of_a_shift_is_its_length_as_a_fraction_of_the_image():
    current, keyframe = shifted_pair(6, 0)
    flow = np.zeros((80, 120, 2), np.float32)
    flow[..., 0] = 6
    assert flow_change(flow, current, keyframe) == pytest.approx(6 / 120, rel=1e-4)


def test_a_cut_is_a_change_that_motion_does_not_compensate():
    search = OpticalFlow()
    current, keyframe = shifted_pair(3, 0)
    other = texture(80, 120, seed=9)
    small = flow_change(search.between(current, keyframe), current, keyframe)
    cut = flow_change(search.between(other, keyframe), other, keyframe)
    assert small < 0.05 < cut


def test_nothing_changes_between_an_image_and_itself():
    _, keyframe = shifted_pair(0, 0)
    flow = OpticalFlow().between(keyframe, keyframe)
    assert flow_change(flow, keyframe, keyframe) == pytest.approx(0, abs=1e-3)
