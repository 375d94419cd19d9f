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
    mask = found[0].mask
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


def three(tiny_names=("cup", "spoon")) -> Detections:
    rois = np.array([[0, 0, 2, 3], [4, 1, 6, 2], [5, 5, 5, 5]], np.int32)
    masks = tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in rois)
    return Detections(
        boxes=rois.astype(np.float32),
        scores=np.array([0.9, 0.8, 0.7], np.float32),
        mask_scores=np.array([0.5, 0.8, 0.1], np.float32),
        class_ids=np.array([1, 0, 1]),
        mask_rois=rois,
        masks=masks,
        image_size=(6, 8),
        track_ids=np.array([7, 0, 9]),
        class_names=tiny_names,
    )


def test_iterating_gives_instances_with_their_names_and_masks():
    instances = list(three())
    assert [i.class_name for i in instances] == ["spoon", "cup", "spoon"]
    assert [i.track_id for i in instances] == [7, 0, 9]
    assert [int(i.mask.sum()) for i in instances] == [6, 2, 0]
    assert instances[1].mask[1, 4:6].all() and instances[1].mask.shape == (6, 8)
    assert three()[-1].score == pytest.approx(0.7)
    assert list(Detections.empty((4, 5))) == []
    with pytest.raises(IndexError):
        three()[3]


def test_representations_are_short():
    assert repr(Detections.empty((480, 640))) == "Detections(0 instances, 640x480)"
    found = three()
    assert repr(found) == "Detections(3 instances, 8x6: spoon 0.90, cup 0.80, spoon 0.70)"
    assert "True" not in repr(found[0])  # the mask
    many = found[[0] * 100]
    assert repr(many).startswith("Detections(100 instances, ") and repr(many).endswith(", ...)")
    assert len(repr(many)) < 100


@pytest.mark.parametrize(
    "key, expected",
    [
        (slice(1, None), [0.8, 0.7]),
        ([2, 0], [0.7, 0.9]),
        ([], []),
        (np.array([True, False, True]), [0.9, 0.7]),
        ([False, False, True], [0.7]),
        (np.zeros(3, bool), []),
    ],
)
def test_slices_indices_and_boolean_arrays_select(key, expected):
    found = three()[key]
    assert isinstance(found, Detections) and len(found) == len(found.masks) == len(expected)
    assert found.scores.tolist() == pytest.approx(expected)
    assert found.image_size == (6, 8) and len(found.track_ids) == len(expected)


def test_a_boolean_array_of_another_length_is_an_error():
    with pytest.raises(IndexError):
        three()[np.array([True, False])]


def test_classes_are_selected_by_name():
    assert three().with_classes(["spoon"]).scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(three().with_classes("cup")) == 1
    assert len(three().with_classes([])) == 0
    with pytest.raises(ValueError, match="No class is named 'fork'; the model has: cup, spoon"):
        three().with_classes(["cup", "fork"])


def test_supervision_gets_the_same_boxes_masks_and_ids():
    pytest.importorskip("supervision")
    converted = three().to_supervision()
    np.testing.assert_array_equal(converted.xyxy, three().boxes)
    assert converted.mask.sum(axis=(1, 2)).tolist() == [6, 2, 0]
    assert converted.tracker_id.tolist() == [7, 0, 9]
    assert converted.data["class_name"].tolist() == ["spoon", "cup", "spoon"]
    assert len(Detections.empty((4, 5)).to_supervision()) == 0
