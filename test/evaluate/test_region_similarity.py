"""Squares whose IoUs are known by hand get the J of DAVIS."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pycocotools")

from yolact_ros.datasets.coco import Sample  # noqa: E402
from yolact_ros.evaluate.video import best_ious  # noqa: E402
from yolact_ros.runtime.detections import Detections  # noqa: E402

SIZE = (60, 80)


def truth(*rows, crowd=()):
    """Return true instances from rows (x1, y1, x2, y2, class, track), which fill their boxes."""
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
    """Return detections from rows (x1, y1, x2, y2, class, score), which fill their boxes."""
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
