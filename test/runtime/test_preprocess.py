from __future__ import annotations

import math

import numpy as np
import pytest

from yolact_ros.config import ModelConfig
from yolact_ros.runtime.preprocess import Placement, prepare_image

MODEL = ModelConfig(name="tiny", classes=("cup",), input_size=(32, 48))


def test_an_image_is_squashed_to_the_input_size():
    image = np.zeros((100, 60, 3), np.uint8)
    image[:50] = (10, 20, 30)
    tensor, placement = prepare_image(image, MODEL)
    assert tensor.shape == (1, 32, 48, 3)
    assert tensor.dtype == np.uint8
    assert tensor.flags["C_CONTIGUOUS"]
    assert (tensor[0, :15] == (10, 20, 30)).all()
    assert (tensor[0, 17:] == 0).all()
    assert placement.image_size == (100, 60)


def test_an_image_of_the_input_size_passes_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    tensor, _ = prepare_image(image, MODEL)
    np.testing.assert_array_equal(tensor[0], image)


def blended(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """Interpolate the pixel at a position from the four around it; the border repeats."""
    height, width, _ = image.shape
    total = np.zeros(3)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            pixel = image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * pixel
    return total


@pytest.mark.parametrize("size", [(11, 7), (33, 49), (97, 150), (64, 96), (480, 641)])
def test_resizing_blends_the_four_nearest_pixels_at_every_pixel(size):
    """Some builds of OpenCV differ on one kind of processor; see setup.cfg."""
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    tensor, _ = prepare_image(image, MODEL)
    expected = [
        [
            blended(image, (row + 0.5) * size[0] / 32 - 0.5, (column + 0.5) * size[1] / 48 - 0.5)
            for column in range(48)
        ]
        for row in range(32)
    ]
    difference = np.abs(tensor[0] - np.array(expected))
    assert difference.max() < 0.9, "half a level by rounding, a quarter by weights of 11 bits"


@pytest.mark.parametrize("view", ["flipped", "cropped", "rows padded"])
def test_strides_make_no_difference(view):
    whole = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    image = {
        "flipped": whole[:, ::-1],
        "cropped": whole[10:70, 20:100],
        "rows padded": whole[:, :100],
    }[view]
    tensor, _ = prepare_image(image, MODEL)
    copied, _ = prepare_image(image.copy(), MODEL)
    assert not image.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(tensor, copied)


def test_an_image_of_one_pixel_fills_the_input():
    tensor, _ = prepare_image(np.full((1, 1, 3), 7, np.uint8), MODEL)
    assert (tensor == 7).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        [[1, 2], [3, 4]],
    ],
    ids=["grey", "four channels", "float", "no rows", "list"],
)
def test_an_array_that_is_not_a_colour_image_is_reported(image):
    with pytest.raises(ValueError, match="expected"):
        prepare_image(image, MODEL)


def test_boxes_are_returned_in_pixels_clipped_to_the_image():
    placement = Placement((100, 200), (100.0, 200.0))
    boxes = np.array([[0.25, 0.5, 0.5, 0.75], [-0.1, -0.2, 1.3, 1.1], [1.2, 0, 1.4, 1]])
    boxes = boxes.astype(np.float32)
    expected = [[50, 50, 100, 75], [0, 0, 200, 100], [200, 0, 200, 100]]
    np.testing.assert_allclose(placement.boxes_to_image(boxes), expected, rtol=1e-6)
    assert placement.boxes_to_image(boxes).dtype == np.float32


def test_boxes_in_a_padded_input_are_shifted_back():
    # A 100x200 image in the middle of a square input: 50 rows of padding above and below.
    placement = Placement((100, 200), (200.0, 200.0), (50.0, 0.0))
    boxes = np.array([[0.0, 0.25, 1.0, 0.75], [0.5, 0.5, 0.6, 0.6]], np.float32)
    expected = [[0, 0, 200, 100], [100, 50, 120, 70]]
    np.testing.assert_allclose(placement.boxes_to_image(boxes), expected, rtol=1e-6)


def test_boxes_that_are_not_finite_become_finite():
    placement = Placement((100, 200), (100.0, 200.0))
    boxes = placement.boxes_to_image(np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32))
    assert boxes.tolist() == [[0, 0, 200, 50]]


def test_an_array_without_boxes_stays_empty():
    placement = Placement((5, 5), (5.0, 5.0))
    assert placement.boxes_to_image(np.zeros((0, 4), np.float32)).shape == (0, 4)
