"""The reference's mAP: by hand, by a slow loop, and where it differs from COCOeval."""

from __future__ import annotations

import numpy as np
import pytest

rle_masks = pytest.importorskip("pycocotools.mask")

from yolact_ros.evaluate.coco_tables import CocoTables  # noqa: E402
from yolact_ros.evaluate.reference_map import (  # noqa: E402
    average_precision,
    match_greedily,
    reference_map,
)


def tables_of(truth, found, *, classes=("a", "b")):
    """Tables of one 100x100 image; rows are (class, x, y, width, height[, score])."""
    tables = CocoTables(range(len(classes)), classes)
    tables.add_image(1, (100, 100))

    def entry(row):
        class_id, x, y, w, h, *rest = row
        mask = np.zeros((100, 100), np.uint8, order="F")
        mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
        common = {
            "image_id": 1, "category_id": class_id, "bbox": [x, y, w, h], "area": w * h,
            "segmentation": rle_masks.encode(mask), "iscrowd": 0,
        }  # fmt: skip
        return {**common, "score": rest[0]} if rest else common

    for number, row in enumerate(truth, start=1):
        tables.truth.append({**entry(row), "id": number})
    for number, row in enumerate(found, start=1):
        tables.found["bbox"].append({**entry(row), "id": number})
        tables.found["segm"].append({**entry(row), "id": number})
    return tables


def test_average_precision_by_hand():
    # Right, wrong, right; of 4. Recalls 1/4, 1/4, 2/4; precisions 1, 2/3, 2/3 after smoothing.
    value = average_precision(
        np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), positives=4
    )
    assert value == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)
    assert average_precision(np.zeros(0), np.zeros(0, bool), positives=3) == 0
    assert average_precision(np.ones(2), np.zeros(2, bool), positives=0) == 0


def test_an_iou_must_exceed_the_threshold_and_each_instance_is_taken_once():
    iou = np.array([[0.5, 0.2], [0.9, 0.6], [0.8, 0.7]])
    assert match_greedily(iou, threshold=0.5).tolist() == [False, True, True]
    assert match_greedily(np.zeros((2, 0)), threshold=0.5).tolist() == [False, False]
    assert match_greedily(np.zeros((0, 2)), threshold=0.5).tolist() == []


def slow_ap(truth, found, threshold):
    """One class of one image, box by box."""
    taken, hits = set(), []
    for box in sorted(found, key=lambda row: -row[4]):
        x1, y1, x2, y2 = int(box[0]), int(box[1]), int(box[0] + box[2]), int(box[1] + box[3])
        best, best_iou = None, threshold
        for i, (tx, ty, tw, th) in enumerate(truth):
            w = min(x2, tx + tw) - max(x1, tx)
            h = min(y2, ty + th) - max(y1, ty)
            shared = max(w, 0) * max(h, 0)
            iou = shared / ((x2 - x1) * (y2 - y1) + tw * th - shared)
            if i not in taken and iou > best_iou:
                best, best_iou = i, iou
        hits.append(best is not None)
        taken.add(best)
    total = 0.0
    for recall in np.arange(101) / 100:
        best = 0.0
        for n in range(1, len(hits) + 1):
            if sum(hits[:n]) / len(truth) >= recall:
                best = max(best, sum(hits[:n]) / n)
        total += best
    return total / 101


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_a_slow_loop_computes(seed):
    random = np.random.default_rng(seed)
    truth = [tuple(v) for v in random.integers(5, 40, (6, 4)).tolist()]
    found = []
    for x, y, w, h in truth[:5] * 2:
        dx, dy = random.uniform(-4, 4, 2)
        found.append((x + 5 + dx, y + 5 + dy, w + random.uniform(0, 3), h, random.random()))
    truth = [(x + 5, y + 5, w, h) for x, y, w, h in truth]
    result = reference_map(
        tables_of([(0, *row) for row in truth], [(0, *row) for row in found], classes=("a",))
    )
    for threshold, value in result.box.items():
        assert value == pytest.approx(slow_ap(truth, found, threshold), abs=1e-9)


def test_where_it_differs_from_cocoeval():
    truth = [(0, 10, 10, 40, 40), (0, 60, 60, 0.5, 30)]  # the second one is too narrow to count
    found = [(0, 10, 10, 40, 40, 0.9), (1, 10, 10, 40, 40, 0.8)]  # class 1 is not there
    tables = tables_of(truth, found)
    result = reference_map(tables)
    assert result.box[0.5] == pytest.approx((1 + 0) / 2)
    assert result.mask_mean == pytest.approx(0.5)
    tables.truth[0]["iscrowd"] = 1  # then all detections are false, and nothing is there
    assert reference_map(tables).box_mean == 0
    assert reference_map(tables_of([], [])).mask_mean == 0
