"""Steadiness of masks on squares whose IoUs are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from yolact_ros.datasets.coco import Sample  # noqa: E402
from yolact_ros.evaluate.stability import Stability, best_ious, match_tracks  # noqa: E402
from yolact_ros.evaluate.true_motion import Motion  # noqa: E402
from yolact_ros.runtime.detections import Detections  # noqa: E402

SIZE = (60, 80)
STILL = Motion(np.zeros((*SIZE, 2), np.float32), np.ones(SIZE, bool))


def truth(*rows, crowd=()):
    """True instances of rows (x1, y1, x2, y2, class, track), which fill their boxes."""
    masks = np.zeros((len(rows), *SIZE), np.uint8)
    for mask, (x1, y1, x2, y2, _, _) in zip(masks, rows, strict=True):
        mask[y1:y2, x1:x2] = 1
    return Sample(
        image=np.zeros((*SIZE, 3), np.uint8),
        boxes=np.array([row[:4] for row in rows], np.float32).reshape(-1, 4),
        masks=masks,
        class_ids=np.array([row[4] for row in rows], np.int64),
        crowd=np.array([i in crowd for i in range(len(rows))], bool),
        image_id=1,
        file_name="1.png",
        track_ids=np.array([row[5] for row in rows], np.int64),
    )


def found(*rows):
    """Detections of rows (x1, y1, x2, y2, class, score), which fill their boxes."""
    boxes = np.array([row[:4] for row in rows], np.int32).reshape(-1, 4)
    scores = np.array([row[5] for row in rows], np.float32)
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=scores,
        mask_scores=scores,
        class_ids=np.array([row[4] for row in rows], np.int64),
        mask_rois=boxes,
        masks=tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in boxes),
        image_size=SIZE,
    )


CUP = (10, 10, 30, 30, 0, 7)


def test_the_best_scored_detection_of_the_class_is_the_object_s():
    matched = match_tracks(
        truth(CUP),
        found((10, 10, 30, 28, 0, 0.8), (10, 10, 30, 30, 0, 0.7), (10, 10, 30, 30, 1, 0.9)),
    )
    assert set(matched) == {7}
    assert matched[7].sum() == 20 * 18


@pytest.mark.parametrize(
    "detection",
    [
        (10, 10, 30, 30, 1, 0.9),  # another class
        (10, 10, 30, 30, 0, 0.2),  # too unsure to be shown
        (10, 10, 30, 19, 0, 0.9),  # IoU 9 / 20
    ],
)
def test_what_does_not_match_is_not_the_object(detection):
    assert match_tracks(truth(CUP), found(detection)) == {}


def test_the_best_mask_of_an_object_is_that_of_any_class():
    cat = (40, 10, 60, 30, 1, 8)
    crowd = (0, 40, 20, 60, 0, 9)
    detections = found(
        (10, 10, 30, 20, 0, 0.9),  # IoU with the cup 1 / 2
        (10, 10, 30, 25, 1, 0.5),  # 3 / 4, another class
        (10, 10, 30, 30, 0, 0.2),  # too unsure to be shown
        (0, 40, 20, 60, 0, 0.9),  # the crowd's
    )
    assert best_ious(truth(CUP, cat, crowd, crowd=(2,)), detections) == [0.75, 0.0]
    assert best_ious(truth(CUP), found()) == [0.0]
    assert best_ious(truth(), detections) == []


def test_crowds_and_empty_frames_match_nothing():
    assert match_tracks(truth(CUP, crowd=(0,)), found((10, 10, 30, 30, 0, 0.9))) == {}
    assert match_tracks(truth(), found((10, 10, 30, 30, 0, 0.9))) == {}
    assert match_tracks(truth(CUP), found()) == {}


def test_the_iou_of_consecutive_masks_is_averaged():
    stability = Stability()
    stability.add(truth(CUP), found((10, 10, 30, 30, 0, 0.9)), None)
    assert stability.mean is None
    stability.add(truth(CUP), found((10, 10, 30, 25, 0, 0.9)), STILL)
    assert stability.mean == pytest.approx(15 / 20)
    stability.add(truth(CUP), found((10, 10, 30, 25, 0, 0.9)), STILL)
    assert stability.mean == pytest.approx((15 / 20 + 1) / 2)
    assert stability.lost_share == 0


def test_an_object_found_in_one_of_two_frames_counts_zero_and_in_neither_nothing():
    stability = Stability()
    cup, spoon = (*CUP[:4], 0, 0.9), (40, 10, 60, 30, 1, 0.9)
    both = truth(CUP, (40, 10, 60, 30, 1, 8))
    stability.add(both, found(cup, spoon), None)
    stability.add(both, found(cup), STILL)  # the spoon is lost
    assert (stability.mean, stability.lost_share) == (0.5, 0.5)
    stability.add(both, found(cup), STILL)
    assert stability.mean == pytest.approx(2 / 3)


def test_an_object_that_enters_the_picture_is_not_compared():
    stability = Stability()
    stability.add(truth(), found(), None)
    stability.add(truth(CUP), found((*CUP[:4], 0, 0.9)), STILL)
    assert stability.mean is None and stability.lost_share is None


def test_clips_are_not_compared_with_each_other():
    stability = Stability()
    stability.add(truth(CUP), found((*CUP[:4], 0, 0.9)), None)
    stability.begin_clip()
    stability.add(truth(CUP), found(), None)
    assert stability.mean is None


def test_only_what_both_frames_show_is_compared():
    stability = Stability()
    visible = np.ones(SIZE, bool)
    visible[:, :20] = False  # the left half of the cup came from behind something
    stability.add(truth(CUP), found((10, 10, 30, 30, 0, 0.9)), None)
    motion = Motion(np.zeros((*SIZE, 2), np.float32), visible)
    stability.add(truth(CUP), found((15, 10, 30, 30, 0, 0.9)), motion)
    assert stability.mean == 1
