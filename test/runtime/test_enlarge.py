"""Masks upsampled only at their edges equal masks with every pixel interpolated."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.runtime.enlarge import enlarge_masks
from yolact_ros.runtime.masks import SoftMasks
from yolact_ros.runtime.preprocess import Placement

pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


def one_axis(cells, pixels, extent, shift):
    """Return the lower cell, the upper cell and the fraction of the upper one of each pixel."""
    f = np.float32
    centres = np.arange(pixels, dtype=f) + f(0.5) + f(shift)
    positions = np.clip(f(cells) / f(extent) * centres - f(0.5), 0, f(cells - 1))
    lower = positions.astype(int)
    return lower, np.minimum(lower + 1, cells - 1), positions - lower.astype(f)


def every_pixel(soft, placement, threshold):
    """Interpolate all pixels of whole masks in float32, (N, H, W) bool."""
    (above, below, down), (left, right, across) = (
        one_axis(*axis)
        for axis in zip(
            soft.size, placement.image_size, placement.extent, placement.shift, strict=True
        )
    )
    masks = []
    for grid in soft.dense():
        wide = grid[:, left] + (grid[:, right] - grid[:, left]) * across
        rise = (wide[below] - wide[above]) * down[:, None]
        masks.append(rise > threshold - wide[above])
    return np.array(masks, bool).reshape(-1, *placement.image_size)


def painted(regions, masks, size):
    """Paint masks into their regions of whole images, (N, H, W) bool."""
    frames = np.zeros((len(masks), *size), bool)
    for frame, (x1, y1, x2, y2), mask in zip(frames, regions, masks, strict=True):
        assert mask.shape == (y2 - y1, x2 - x1)
        frame[y1:y2, x1:x2] = mask
    return frames


def placed(image_size, *, extent=None, shift=(0.0, 0.0)):
    height, width = image_size
    return Placement(image_size, extent or (float(height), float(width)), shift)


def soft_masks(cells, grids):
    """Crop (N, Hp, Wp) grids at cells."""
    cells = np.array(cells, np.int64).reshape(-1, 4)
    values = tuple(g[y1:y2, x1:x2] for g, (x1, y1, x2, y2) in zip(grids, cells, strict=True))
    return SoftMasks(cells, values, np.shape(grids)[1:])


@st.composite
def scenes(draw):
    """Draw soft masks with values at, around and far from the threshold, and a placement."""
    threshold = draw(st.sampled_from([0.5, 0.2, 0.35, 0.95, 1e-6, 0.0]))
    at = np.float32(threshold)
    near = [np.nextafter(at, np.float32(side)) for side in (0, 1)]
    near += [at + np.float32(sign * step) for sign in (1, -1) for step in (1e-6, 9e-6, 1.1e-5)]
    special = np.clip(np.array([0, 1, at, *near], np.float32), 0, 1)
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    count = draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grids = special[rng.integers(0, len(special), (count, height, width))]
    smooth = rng.random(grids.shape, np.float32)
    grids = np.where(rng.random(grids.shape) < draw(st.sampled_from([0, 0.3, 1])), smooth, grids)
    if draw(st.booleans()):  # constant masks, also exactly at the threshold
        grids[:] = special[rng.integers(0, len(special), (count, 1, 1))]
    x = np.sort(rng.integers(0, width + 1, (count, 2)))
    y = np.sort(rng.integers(0, height + 1, (count, 2)))
    cells = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
    image = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    placement = placed(image)
    if draw(st.booleans()):  # letterboxed: the image is a part of the input
        shift = rng.uniform(0, 20, 2)
        extent = tuple(np.array(image) + shift + rng.uniform(0, 20, 2))
        placement = placed(image, extent=extent, shift=tuple(shift))
    return soft_masks(cells, grids), placement, threshold


@settings(max_examples=400, deadline=None)
@given(scenes())
def test_masks_equal_those_with_every_pixel_interpolated(scene):
    soft, placement, threshold = scene
    regions, masks = enlarge_masks(soft, placement, threshold)
    assert regions.dtype == np.int32
    assert regions.shape == (len(soft.values), 4)
    assert all(mask.dtype == bool for mask in masks)
    expected = every_pixel(soft, placement, threshold)
    np.testing.assert_array_equal(painted(regions, masks, placement.image_size), expected)


# Hundreds of rows within a gap, then tens of pixels, and fewer pixels than cells.
@pytest.mark.parametrize("image_size", [(1500, 40), (720, 1280), (1, 1), (3, 5)])
def test_smooth_masks_of_many_sizes_equal_those_with_every_pixel_interpolated(image_size):
    y, x = np.mgrid[:9, :11]
    discs = [np.hypot(y - r, x - c) for r, c in ((4, 5), (0, 0), (8, 10), (20, 20))]
    grids = (1 / (1 + np.exp(np.array(discs) - 3))).astype(np.float32)
    soft = soft_masks([[1, 1, 9, 8], [0, 0, 4, 4], [7, 5, 11, 9], [0, 0, 11, 9]], grids)
    found = painted(*enlarge_masks(soft, placed(image_size), 0.5), image_size)
    np.testing.assert_array_equal(found, every_pixel(soft, placed(image_size), 0.5))


def test_many_noisy_masks_equal_those_with_every_pixel_interpolated():
    # More edges than are interpolated in one block.
    grids = np.random.default_rng(0).random((6, 40, 40), np.float32)
    soft = soft_masks(np.tile([0, 0, 40, 40], (6, 1)), grids)
    found = painted(*enlarge_masks(soft, placed((90, 130)), 0.5), (90, 130))
    np.testing.assert_array_equal(found, every_pixel(soft, placed((90, 130)), 0.5))


def test_an_edge_by_hand():
    # Cells 0, 0, 1, 1 of four pixels: from the centre of the second, 6, to that of the third, 10,
    # the value rises to 1, and exceeds 0.3 after 7.2: from pixel 7, whose centre is 7.5.
    soft = soft_masks([[0, 0, 4, 1]], np.array([[[0, 0, 1, 1]]], np.float32))
    regions, (mask,) = enlarge_masks(soft, placed((4, 16)), 0.3)
    assert regions.tolist() == [[6, 0, 16, 4]]
    assert mask.tolist() == [[False] + [True] * 9] * 4


def test_values_that_are_not_numbers_set_no_pixel():
    soft = soft_masks([[0, 0, 3, 3]], np.full((1, 3, 3), np.nan, np.float32))
    _, (mask,) = enlarge_masks(soft, placed((9, 9)), 0.5)
    assert not mask.any()
