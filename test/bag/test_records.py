from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.bag.records import ARRAYS, pack_detections, unpack_detections
from yolact_ros.runtime.detections import Detections


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize("frame_type", ["keyframe", "partial"])
def test_detections_survive_a_round_trip(count, frame_type):
    rng = np.random.default_rng(count)
    rois = np.int32([[3, 4, 14, 11], [0, 0, 1, 1], [5, 5, 5, 9], [0, 0, 64, 48]])[:count]
    found = Detections(
        boxes=rng.random((count, 4)).astype(np.float32),
        scores=rng.random(count).astype(np.float32),
        mask_scores=rng.random(count).astype(np.float32),
        class_ids=rng.integers(0, 9, count),
        mask_rois=rois.reshape(-1, 4),
        masks=tuple(rng.random((y2 - y1, x2 - x1)) > 0.5 for x1, y1, x2, y2 in rois),
        image_size=(48, 64),
        frame_type=frame_type,
    )
    again = unpack_detections(pack_detections(found))
    for name in ARRAYS:
        assert getattr(again, name).dtype == getattr(found, name).dtype
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert len(again.masks) == count
    for mask, expected in zip(again.masks, found.masks, strict=True):
        assert mask.dtype == bool and np.array_equal(mask, expected)
    assert (again.image_size, again.frame_type) == ((48, 64), frame_type)
