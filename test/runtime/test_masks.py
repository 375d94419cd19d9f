"""Masks inside their boxes match the reference's formula on the whole image."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.runtime.enlarge import enlarge_masks
from yolact_ros.runtime.masks import assemble_masks, box_cells
from yolact_ros.runtime.preprocess import Placement


def soft_on_the_grid(prototypes, coefficients, boxes):
    """Apply the sigmoid to the linear combination and crop cell by cell; (N, Hp, Wp) float64."""
    height, width = prototypes.shape[:2]
    masks = np.zeros((len(boxes), height, width))
    for mask, box, weights in zip(masks, boxes, coefficients, strict=True):
        x1, x2 = sorted([np.float32(box[0] * width), np.float32(box[2] * width)])
        y1, y2 = sorted([np.float32(box[1] * height), np.float32(box[3] * height)])
        for y in range(height):
            for x in range(width):
                inside = max(x1 - 1, 0) <= x < min(x2 + 1, width)
                if inside and max(y1 - 1, 0) <= y < min(y2 + 1, height):
                    total = np.dot(prototypes[y, x].astype(np.float64), weights)
                    mask[y, x] = 1 / (1 + np.exp(-total))
    return masks


def bilinear(mask, rows, columns):
    """Interpolate `mask` at float64 positions, clamped at its borders."""
    height, width = mask.shape
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    y, x = np.floor(rows).astype(int), np.floor(columns).astype(int)
    below, right = np.minimum(y + 1, height - 1), np.minimum(x + 1, width - 1)
    down, across = (rows - y)[:, None], columns - x
    upper = mask[y][:, x] * (1 - across) + mask[y][:, right] * across
    lower = mask[below][:, x] * (1 - across) + mask[below][:, right] * across
    return upper * (1 - down) + lower * down


def full_frames(soft, size):
    """Enlarge every soft mask to the whole image, `align_corners=False`, float64."""
    height, width = size
    rows = (np.arange(height) + 0.5) * soft.shape[1] / height - 0.5
    columns = (np.arange(width) + 0.5) * soft.shape[2] / width - 0.5
    return np.stack([bilinear(mask, rows, columns) for mask in soft])


def scene(seed, *, count=12, size=(23, 31), prototypes=5):
    """Return smooth prototypes, and boxes of which some leave the image and one is inverted."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / 9.0
    phases = rng.uniform(0, 6, (4, prototypes))
    waves = np.cos(x[..., None] * phases[0] + phases[1]) * np.cos(y[..., None] * phases[2])
    coefficients = rng.uniform(-1, 1, (count, prototypes)).astype(np.float32)
    centres, sides = rng.uniform(-0.1, 1.1, (count, 2)), rng.uniform(0.01, 0.9, (count, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    boxes[0] = boxes[0, [2, 3, 0, 1]]
    return np.maximum(waves * 4, 0).astype(np.float32), coefficients, boxes.astype(np.float32)


def painted(regions, masks, size):
    """Paint masks into their regions of whole images, (N, H, W) bool."""
    frames = np.zeros((len(masks), *size), bool)
    for frame, (x1, y1, x2, y2), mask in zip(frames, regions, masks, strict=True):
        frame[y1:y2, x1:x2] = mask
    return frames


def squash(height, width):
    return Placement((height, width), (float(height), float(width)))


@pytest.mark.parametrize("seed", range(3))
def test_soft_masks_equal_the_combination_cropped_cell_by_cell(seed):
    prototypes, coefficients, boxes = scene(seed)
    soft = assemble_masks(prototypes, coefficients, boxes)
    expected = soft_on_the_grid(prototypes, coefficients, boxes)
    np.testing.assert_allclose(soft.dense(), expected, atol=2e-6)
    np.testing.assert_array_equal(soft.dense() > 0, expected > 0)


# Larger than the prototypes, smaller, narrow, and of one pixel.
@pytest.mark.parametrize("size", [(97, 131), (480, 640), (23, 31), (11, 17), (3, 400), (1, 1)])
@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_masks_equal_the_full_frame_formula(size, threshold):
    prototypes, coefficients, boxes = scene(4)
    soft = assemble_masks(prototypes, coefficients, boxes)
    regions, masks = enlarge_masks(soft, squash(*size), threshold)
    expected = full_frames(soft_on_the_grid(prototypes, coefficients, boxes), size)
    differing = painted(regions, masks, size) != (expected > threshold)
    # Only where the value is the threshold but for rounding may a pixel go either way.
    assert np.abs(expected[differing] - threshold).max(initial=0) < 1e-5
    assert differing.sum() <= 12


def test_masks_equal_those_of_torch_pixel_by_pixel():
    torch = pytest.importorskip("torch")
    prototypes, coefficients, boxes = scene(5, count=40, size=(138, 138))
    soft = assemble_masks(prototypes, coefficients, boxes)
    regions, masks = enlarge_masks(soft, squash(360, 640), 0.5)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(soft.dense())[None], (360, 640), mode="bilinear", align_corners=False
    )[0]
    differing = painted(regions, masks, (360, 640)) != (expected.numpy() > 0.5)
    assert expected.gt(0.5).sum() > 100_000
    assert differing.sum() <= 5  # torch may fuse a product with a sum


def test_a_mask_of_an_image_within_a_padded_input_is_that_part_of_the_whole():
    # The image lies in the middle of a square input, as letterboxing places it.
    prototypes, coefficients, boxes = scene(6, size=(32, 32))
    soft = assemble_masks(prototypes, coefficients, boxes)
    whole = painted(*enlarge_masks(soft, squash(160, 160), 0.5), (160, 160))
    inner = Placement((100, 160), (160.0, 160.0), (30.0, 0.0))
    part = painted(*enlarge_masks(soft, inner, 0.5), (100, 160))
    np.testing.assert_array_equal(part, whole[:, 30:130])


def test_cells_of_a_box_by_hand():
    # Columns 10 * (0.35, 0.55) padded by 1: 2.5 to 6.5, so cells 3..6; rows 4 to 9: 4..8.
    cells = box_cells(np.array([[0.35, 0.5, 0.55, 0.8]], np.float32), (10, 10))
    assert cells.tolist() == [[3, 4, 7, 9]]


@pytest.mark.parametrize(
    "box",
    [
        [1.2, 0.1, 1.4, 0.3],
        [-0.9, 0.1, -0.4, 0.3],
        [0.1, 3.0, 0.2, 4.0],
        [np.nan, 0.0, np.nan, 1.0],
        [-np.inf, 0.0, np.nan, 1.0],
    ],
    ids=["right", "left", "below", "not a number", "infinite"],
)
def test_a_box_outside_the_image_has_an_empty_mask(box):
    boxes = np.array([box, [0.2, 0.2, 0.6, 0.6]], np.float32)
    soft = assemble_masks(np.ones((10, 10, 1), np.float32), np.ones((2, 1), np.float32), boxes)
    regions, masks = enlarge_masks(soft, squash(50, 60), 0.5)
    assert masks[0].size == 0
    assert (regions[0, 0] == regions[0, 2]) or (regions[0, 1] == regions[0, 3])
    assert masks[1].any()
    assert soft.dense()[0].sum() == 0


def test_regions_stay_inside_the_image_and_contain_the_masks():
    prototypes, coefficients, boxes = scene(7, count=40)
    regions, masks = enlarge_masks(
        assemble_masks(prototypes, coefficients, boxes), squash(90, 70), 0.5
    )
    assert regions.dtype == np.int32
    for (x1, y1, x2, y2), mask in zip(regions, masks, strict=True):
        assert 0 <= x1 <= x2 <= 70
        assert 0 <= y1 <= y2 <= 90
        assert mask.shape == (y2 - y1, x2 - x1)
        assert mask.dtype == bool


def test_no_detections_yield_no_masks():
    nothing = np.zeros((0, 4), np.float32)
    soft = assemble_masks(np.ones((10, 12, 4), np.float32), nothing, nothing)
    assert soft.dense().shape == (0, 10, 12)
    regions, masks = enlarge_masks(soft, squash(50, 60), 0.5)
    assert regions.shape == (0, 4)
    assert masks == ()


def test_extreme_sums_saturate_without_a_warning():
    prototypes = np.full((10, 10, 1), 1e4, np.float32)
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (2, 1))
    soft = assemble_masks(prototypes, np.array([[1], [-1]], np.float32), boxes)
    assert [values.max() for values in soft.values] == [1.0, 0.0]


def test_regions_end_where_no_pixel_can_be_set():
    # One cell of ten by ten is set, in a box that covers them all; a cell is ten pixels.
    prototypes = np.full((10, 10, 1), -8.0, np.float32)
    prototypes[4, 6] = 8.0
    whole = np.array([[0, 0, 1, 1]], np.float32)
    soft = assemble_masks(prototypes, np.ones((1, 1), np.float32), whole)
    regions, masks = enlarge_masks(soft, squash(100, 100), 0.5)
    assert regions.tolist() == [[55, 35, 75, 55]]
    assert masks[0].any()
    nothing = assemble_masks(prototypes, np.full((1, 1), 0.0, np.float32), whole)
    regions, masks = enlarge_masks(nothing, squash(100, 100), 0.5)
    assert regions.tolist() == [[0, 0, 0, 0]]
    assert masks[0].shape == (0, 0)
