"""Letterboxing keeps the aspect ratio, and boxes and masks map back to their pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from yolact_ros.config import LETTERBOX_FILL_BGR
from yolact_ros.runtime.enlarge import enlarge_masks
from yolact_ros.runtime.masks import SoftMasks
from yolact_ros.runtime.preprocess import prepare_image
from yolact_ros.variants import YOLACT_RESNET50

SQUARE = replace(YOLACT_RESNET50, input_size=(200, 200), resize="letterbox")


def picture_with_rectangle(height, width, box):
    x1, y1, x2, y2 = box
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = (0, 0, 255)
    return image


def extent_of(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 517), (1000, 100)])
def test_a_rectangle_in_the_input_maps_back_to_its_pixels(size):
    height, width = size
    box = (width // 5, height // 4, width // 2, height // 2)
    tensor, placement = prepare_image(picture_with_rectangle(*size, box), SQUARE)
    found = extent_of((tensor[0, ..., 2] > 127) & (tensor[0, ..., 1] < 60))
    fractions = np.array([found], np.float32) / 200
    pixels_per_cell = max(size) / 200
    np.testing.assert_allclose(placement.boxes_to_image(fractions)[0], box, atol=pixels_per_cell)


def test_the_image_lies_in_the_middle_with_its_aspect_ratio_kept():
    tensor, _ = prepare_image(np.full((100, 200, 3), 255, np.uint8), SQUARE)
    assert (tensor[0, 50:150] == 255).all()
    assert (tensor[0, :50] == LETTERBOX_FILL_BGR).all()
    assert (tensor[0, 150:] == LETTERBOX_FILL_BGR).all()


def test_the_whole_image_is_the_whole_image():
    _, placement = prepare_image(np.zeros((333, 517, 3), np.uint8), SQUARE)
    inner_rows = round(333 * 200 / 517)
    top = (200 - inner_rows) // 2
    whole = np.array([[0, top / 200, 1, (top + inner_rows) / 200]], np.float32)
    np.testing.assert_allclose(placement.boxes_to_image(whole), [[0, 0, 517, 333]], atol=1e-3)


def test_an_image_of_the_input_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    tensor, placement = prepare_image(image, SQUARE)
    np.testing.assert_array_equal(tensor[0], image)
    assert placement.shift == (0, 0)
    assert placement.extent == (200, 200)


def test_one_pixel_is_an_image_too():
    tensor, placement = prepare_image(np.full((1, 1, 3), 9, np.uint8), SQUARE)
    assert (tensor == 9).all()
    np.testing.assert_allclose(
        placement.boxes_to_image(np.array([[0, 0, 1, 1]], np.float32)), [[0, 0, 1, 1]]
    )


def test_a_mask_maps_back_to_the_pixels_that_it_covers():
    # Prototype cells are 4 x 4 input pixels; cells 20..30 x 25..35 of an image twice the input.
    _, placement = prepare_image(np.zeros((200, 400, 3), np.uint8), SQUARE)
    soft = SoftMasks(np.array([[20, 25, 30, 35]]), (np.ones((10, 10), np.float32),), (50, 50))
    regions, masks = enlarge_masks(soft, placement, 0.5)
    frame = np.zeros((200, 400), bool)
    x1, y1, x2, y2 = regions[0]
    frame[y1:y2, x1:x2] = masks[0]
    # Input x 80..120 is image 160..240; input y 100..140 less 50 of border is image 100..180.
    np.testing.assert_allclose(extent_of(frame), [160, 100, 240, 180], atol=1)


def test_a_wide_input_keeps_the_aspect_ratio_too():
    wide = replace(SQUARE, input_size=(64, 256))
    tensor, placement = prepare_image(np.full((64, 64, 3), 255, np.uint8), wide)
    assert tensor.shape == (1, 64, 256, 3)
    assert (tensor[0, :, 96:160] == 255).all()
    np.testing.assert_allclose(
        placement.boxes_to_image(np.array([[96 / 256, 0, 160 / 256, 1]], np.float32)),
        [[0, 0, 64, 64]],
        atol=1e-3,
    )


def test_training_prepares_images_as_inference_does():
    pytest.importorskip("pycocotools")
    from yolact_ros.datasets.coco import Sample
    from yolact_ros.train.augment import resize_sample

    rows, columns = np.mgrid[0:90, 0:160]
    image = np.stack([rows * 2, columns, rows + columns], axis=-1).astype(np.uint8)
    sample = Sample(
        image=image,
        boxes=np.array([[16, 9, 80, 45]], np.float32),
        masks=np.ones((1, 90, 160), np.uint8),
        class_ids=np.zeros(1, np.int64),
        crowd=np.zeros(1, bool),
        image_id=1,
        file_name="a.png",
    )
    made = resize_sample(sample, (200, 200), resize="letterbox")
    tensor, placement = prepare_image(image, SQUARE)
    difference = np.abs(made.image.astype(int) - tensor[0]).max(axis=(1, 2))
    # The two round the image's 112.5 rows differently, which shows at its upper and lower edge.
    assert (difference > 3).sum() <= 4
    back = placement.boxes_to_image(made.boxes / 200)
    np.testing.assert_allclose(back, sample.boxes, atol=1.0)
