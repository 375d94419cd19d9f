"""Boxes and masks move with the pixels when samples are augmented."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from yolact_ros.datasets.coco import Sample, tight_box  # noqa: E402
from yolact_ros.train.augment import (  # noqa: E402
    AugmentConfig,
    augment,
    change_colours,
    flip,
    resize_sample,
)
from yolact_ros.train.window import Window, cut_and_resize  # noqa: E402

QUIET = AugmentConfig(
    brightness=0, contrast=0, saturation=0, hue=0, expand_probability=0, crop_probability=0,
    mirror_probability=0,
)  # fmt: skip


def sample_of(*rectangles, size=(120, 160)):
    """Return red rectangles on black, each an instance."""
    image = np.zeros((*size, 3), np.uint8)
    masks = np.zeros((len(rectangles), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, rectangles, strict=True):
        image[y1:y2, x1:x2] = (0, 0, 255)
        mask[y1:y2, x1:x2] = 1
    return Sample(
        image=image,
        boxes=np.array(rectangles, np.float32).reshape(-1, 4),
        masks=masks,
        class_ids=np.arange(len(rectangles)),
        crowd=np.zeros(len(rectangles), bool),
        image_id=1,
        file_name="a.png",
    )


def test_the_same_generator_gives_the_same_sample():
    sample = sample_of((20, 20, 60, 70), (90, 40, 140, 110))
    first = augment(sample, (64, 96), config=AugmentConfig(), random=np.random.default_rng(5))
    again = augment(sample, (64, 96), config=AugmentConfig(), random=np.random.default_rng(5))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)


@pytest.mark.parametrize("seed", range(30))
def test_boxes_stay_tight_around_masks_and_masks_on_their_pixels(seed):
    sample = sample_of((20, 20, 60, 70), (90, 40, 140, 110))
    config = replace(AugmentConfig(), brightness=0, contrast=0, saturation=0, hue=0)
    made = augment(sample, (96, 128), config=config, random=np.random.default_rng(seed))
    assert made.image.shape == (96, 128, 3)
    assert made.masks.shape == (len(made), 96, 128)
    for box, mask in zip(made.boxes, made.masks, strict=True):
        np.testing.assert_allclose(box, tight_box(mask), atol=2.0)
        inside = made.image[mask.astype(bool)]
        assert (inside[:, 2] > 120).mean() > 0.9
        assert (inside[:, 0] < 130).mean() > 0.9


def test_mirroring_twice_changes_nothing():
    sample = sample_of((20, 20, 60, 70))
    twice = flip(flip(sample, 1), 1)
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(twice.boxes, sample.boxes)
    np.testing.assert_array_equal(twice.masks, sample.masks)


def test_mirroring_swaps_left_and_right():
    made = flip(sample_of((20, 30, 60, 70)), 1)
    np.testing.assert_array_equal(made.boxes, [[100, 30, 140, 70]])
    assert made.masks[0, 30:70, 100:140].all()


def test_flipping_swaps_top_and_bottom():
    sample = sample_of((20, 30, 60, 70))
    made = flip(sample, 0)
    np.testing.assert_array_equal(made.boxes, [[20, 50, 60, 90]])
    assert made.masks[0, 50:90, 20:60].all() and made.masks.sum() == sample.masks.sum()
    np.testing.assert_array_equal(made.image[89, 20], sample.image[30, 20])
    assert len(flip(sample_of(), 0)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_flips_are_as_frequent_as_requested(seed):
    sample = sample_of((20, 30, 60, 70))
    random = np.random.default_rng(seed)
    always = augment(
        sample, (120, 160), config=replace(QUIET, flip_probability=1.0), random=random
    )
    never = augment(sample, (120, 160), config=QUIET, random=random)
    np.testing.assert_array_equal(always.image, flip(sample, 0).image)
    np.testing.assert_array_equal(never.image, sample.image)


def test_a_sample_without_changes_is_only_resized():
    sample = sample_of((20, 20, 60, 70))
    made = augment(sample, (60, 80), config=QUIET, random=np.random.default_rng(0))
    np.testing.assert_allclose(made.boxes, [[10, 10, 30, 35]])
    np.testing.assert_array_equal(made.image, resize_sample(sample, (60, 80)).image)


def test_an_instance_whose_centre_is_cut_off_is_dropped():
    sample = sample_of((0, 0, 20, 20), (60, 40, 100, 80))
    made = cut_and_resize(sample, Window(40, 20, 120, 100), size=(80, 80), smallest_box=4)
    assert made.class_ids.tolist() == [1]
    np.testing.assert_allclose(made.boxes, [[20, 20, 60, 60]])


def test_a_window_beyond_the_image_is_filled():
    made = cut_and_resize(
        sample_of((0, 0, 160, 120)), Window(-160, -120, 160, 120), size=(240, 320), smallest_box=4
    )
    assert (made.image[:120, :160] == (104, 117, 124)).all()
    np.testing.assert_allclose(made.boxes, [[160, 120, 320, 240]])


def test_colours_change_within_their_bounds_and_leave_the_original_alone():
    image = np.full((8, 8, 3), 100, np.uint8)
    before = image.copy()
    config = replace(QUIET, brightness=20.0)
    values = {
        int(change_colours(image, config, random=np.random.default_rng(seed))[0, 0, 0])
        for seed in range(40)
    }
    assert min(values) >= 80 and max(values) <= 120 and len(values) > 5
    np.testing.assert_array_equal(image, before)


def test_a_sample_without_instances_stays_empty():
    for seed in range(5):
        made = augment(
            sample_of(), (64, 64), config=AugmentConfig(), random=np.random.default_rng(seed)
        )
        assert len(made) == 0
        assert made.masks.shape == (0, 64, 64)
        assert made.boxes.shape == (0, 4)
