from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.runtime.detections import Detections


def test_empty_detections_have_the_right_shapes():
    nothing = Detections.empty((30, 40))
    assert len(nothing) == 0
    assert nothing.boxes.shape == nothing.mask_rois.shape == (0, 4)
    assert nothing.image_size == (30, 40)
    assert nothing.frame_type == "keyframe"


def test_full_mask_puts_the_crop_in_its_place():
    crop = np.array([[True, False, True], [False, True, True]])
    found = Detections(
        boxes=np.array([[1, 2, 4, 4]], np.float32),
        scores=np.ones(1, np.float32),
        mask_scores=np.ones(1, np.float32),
        class_ids=np.zeros(1, np.int64),
        mask_rois=np.array([[1, 2, 4, 4]], np.int32),
        masks=(crop,),
        image_size=(5, 6),
    )
    mask = found.full_mask(0)
    assert mask.shape == (5, 6)
    assert mask.sum() == crop.sum()
    np.testing.assert_array_equal(mask[2:4, 1:4], crop)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="'scores': 2"):
        Detections(
            boxes=np.zeros((1, 4), np.float32),
            scores=np.ones(2, np.float32),
            mask_scores=np.ones(1, np.float32),
            class_ids=np.zeros(1, np.int64),
            mask_rois=np.zeros((1, 4), np.int32),
            masks=(np.zeros((0, 0), bool),),
            image_size=(5, 6),
        )
