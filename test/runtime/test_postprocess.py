"""Fast NMS matches a slow loop that follows the reference step by step."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.config import PostprocessConfig
from yolact_ros.runtime.postprocess import (
    best_first,
    fast_nms,
    select_detections,
    select_finished,
    self_iou,
)


def slow_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    area_a = (a[2] - a[0]) * (a[3] - a[1])
    area_b = (b[2] - b[0]) * (b[3] - b[1])
    with np.errstate(invalid="ignore"):
        return width * height / (area_a + area_b - width * height)


def reference_fast_nms(boxes, class_scores, *, iou_threshold=0.5, top_k=200, limit=100):
    """Run Fast NMS as the reference does: over all priors, with thresholds applied afterwards.

    Returns (score, class, prior) of all detections, best first.
    """
    found = []
    for class_id in range(class_scores.shape[1]):
        ranked = sorted(range(len(boxes)), key=lambda p, c=class_id: -class_scores[p, c])[:top_k]
        for rank, prior in enumerate(ranked):
            overlaps = [slow_iou(boxes[better], boxes[prior]) for better in ranked[:rank]]
            if all(iou <= iou_threshold for iou in overlaps):  # false for NaN
                found.append((class_scores[prior, class_id], class_id, prior))
    return sorted(found, key=lambda row: -row[0])[:limit]


def predictions(boxes, class_scores):
    """Return predictions whose coefficient is the number of the prior."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return {
        "boxes": boxes,
        "class_scores": np.asarray(class_scores, np.float32).reshape(len(boxes), -1),
        "coefficients": np.arange(len(boxes), dtype=np.float32)[:, None],
        "prototypes": np.zeros((4, 4, 1), np.float32),
    }


def random_predictions(seed, *, priors=120, classes=4):
    """Return clustered boxes, some without width or area, with many tied scores."""
    rng = np.random.default_rng(seed)
    centres = rng.choice(rng.uniform(0, 1, (12, 2)), priors) + rng.normal(0, 0.02, (priors, 2))
    sizes = rng.uniform(0.05, 0.3, (priors, 2))
    sizes[rng.random(priors) < 0.1, 0] = 0
    sizes[rng.random(priors) < 0.1] = 0
    centres[rng.random(priors) < 0.1] = 0.5  # equal points: 0/0
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    scores = np.round(rng.uniform(0, 1, (priors, classes)), 2)
    return predictions(boxes, scores)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.05, 0.5])
@pytest.mark.parametrize("top_k, limit", [(200, 1000), (30, 1000), (200, 9)])
def test_selection_equals_the_slow_loop_above_the_threshold(seed, threshold, top_k, limit):
    given = random_predictions(seed)
    config = PostprocessConfig(score_threshold=threshold, top_k=top_k, max_detections=limit)
    selection = select_detections(given, config)
    rows = reference_fast_nms(given["boxes"], given["class_scores"], top_k=top_k, limit=limit)
    expected = [row for row in rows if row[0] > np.float32(threshold)]
    assert len(selection) == len(expected) > 0
    assert selection.class_ids.tolist() == [class_id for _, class_id, _ in expected]
    assert selection.coefficients[:, 0].tolist() == [prior for *_, prior in expected]
    np.testing.assert_array_equal(selection.scores, [score for score, *_ in expected])
    priors = [prior for *_, prior in expected]
    np.testing.assert_array_equal(selection.boxes, given["boxes"][priors])


def test_threshold_of_zero_keeps_all_but_scores_of_zero():
    given = random_predictions(3)
    config = PostprocessConfig(score_threshold=0.0, max_detections=1000)
    rows = reference_fast_nms(given["boxes"], given["class_scores"], limit=1000)
    assert len(select_detections(given, config)) == sum(score > 0 for score, *_ in rows)


def test_score_equal_to_the_threshold_is_not_enough():
    given = predictions([[0, 0, 1, 1], [2, 2, 3, 3]], [[0.5], [0.75]])
    assert select_detections(given, PostprocessConfig(score_threshold=0.5)).scores == [0.75]


def test_a_suppressed_box_still_suppresses():
    # Neighbours overlap by 2/3, the first and the third by 3/7.
    boxes = [[0.0, 0, 1.0, 1], [0.2, 0, 1.2, 1], [0.4, 0, 1.4, 1]]
    assert fast_nms(np.array(boxes, np.float32), 0.5).tolist() == [True, False, False]


def test_boxes_of_different_classes_do_not_suppress_each_other():
    given = predictions([[0, 0, 1, 1], [0, 0, 1, 1]], [[0.9, 0.0], [0.0, 0.8]])
    assert select_detections(given, PostprocessConfig()).class_ids.tolist() == [0, 1]


def test_one_box_may_be_found_as_two_classes():
    given = predictions([[0, 0, 1, 1]], [[0.6, 0.7]])
    selection = select_detections(given, PostprocessConfig())
    assert selection.class_ids.tolist() == [1, 0]
    assert selection.coefficients[:, 0].tolist() == [0, 0]


def test_iou_equal_to_the_threshold_is_allowed():
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)
    assert self_iou(boxes)[0, 1] == 0.5
    assert fast_nms(boxes, 0.5).all()
    assert fast_nms(boxes, 0.49).tolist() == [True, False]


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 0, 1, 7], [5] * 30, [90, 80], [1, 60]])
def test_boxes_of_many_classes_are_kept_as_in_each_class_alone(sizes):
    rng = np.random.default_rng(len(sizes))
    corners = rng.integers(0, 6, (sum(sizes), 2, 2))  # often equal, also without area
    boxes = np.sort(corners, axis=1).reshape(-1, 4).astype(np.float32)
    kept = fast_nms(boxes, 0.5, sizes)
    expected = []
    for members in np.split(boxes, np.cumsum(sizes, dtype=int)[:-1]):
        for i, box in enumerate(members):
            x1, y1 = np.maximum(members[:i, :2], box[:2]).T
            x2, y2 = np.minimum(members[:i, 2:], box[2:]).T
            inside = np.clip(x2 - x1, 0, None) * np.clip(y2 - y1, 0, None)
            both = np.append(members[:i], [box], axis=0)
            areas = (both[:, 2] - both[:, 0]) * (both[:, 3] - both[:, 1])
            unions = areas[:-1] + areas[-1] - inside
            expected.append(not ((unions == 0) | (inside > unions / 2)).any())
    assert kept.tolist() == expected


def test_second_of_two_boxes_without_area_is_suppressed():
    point = np.full((2, 4), 0.5, np.float32)
    assert np.isnan(self_iou(point)).all()
    assert fast_nms(point, 0.5).tolist() == [True, False]


def test_nothing_over_the_threshold_gives_an_empty_selection():
    selection = select_detections(random_predictions(0), PostprocessConfig(score_threshold=1.0))
    assert len(selection) == 0
    assert selection.boxes.shape == (0, 4)
    assert selection.coefficients.shape == (0, 1)
    assert selection.class_ids.dtype == np.int64


def test_scores_that_are_not_numbers_yield_no_detections():
    given = predictions([[0, 0, 1, 1], [2, 2, 3, 3]], [[np.nan], [0.9]])
    assert select_detections(given, PostprocessConfig()).coefficients.tolist() == [[1.0]]


@pytest.mark.parametrize("count", [1, 7, 50, 500])
def test_best_first_keeps_the_order_of_ties(count):
    scores = np.random.default_rng(1).integers(0, 20, 300).astype(np.float32)
    expected = sorted(range(300), key=lambda i: -scores[i])[:count]
    assert best_first(scores, count).tolist() == expected


def test_finished_detections_are_limited_by_threshold_and_number():
    given = {
        "boxes": np.zeros((5, 4), np.float32),
        "scores": np.array([0.9, 0.8, 0.4, 0.0, -1.0], np.float32),
        "mask_scores": np.array([0.5, 0.8, 0.2, 0.0, -1.0], np.float32),
        "class_ids": np.array([1, 0, 1, 0, 0], np.int32),
        "coefficients": np.arange(5, dtype=np.float32)[:, None],
    }
    all_rows = select_finished(given, PostprocessConfig(score_threshold=0.0))
    assert all_rows.scores.tolist() == pytest.approx([0.9, 0.8, 0.4])
    assert all_rows.class_ids.dtype == np.int64
    best = select_finished(given, PostprocessConfig(score_threshold=0.3, max_detections=1))
    assert best.mask_scores.tolist() == [0.5]
    assert len(select_finished(given, PostprocessConfig(score_threshold=0.95))) == 0
