"""The other ways to select detections match slow loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import recorded

from yolact_ros.config import REFERENCE_POSTPROCESS, PostprocessConfig
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.masks import assemble_masks
from yolact_ros.runtime.postprocess import greedy_nms, select_detections
from yolact_ros.runtime.segmenter import Segmenter


def random_predictions(seed, *, priors=100, classes=3):
    """Return clustered boxes whose scores all differ, half of them low, so the order is unique."""
    rng = np.random.default_rng(seed)
    centres = rng.choice(rng.uniform(0, 1, (8, 2)), priors) + rng.normal(0, 0.03, (priors, 2))
    sizes = rng.uniform(0.05, 0.3, (priors, 2))
    scores = rng.permutation(priors * classes).reshape(priors, classes) / (priors * classes)
    scores[rng.random(priors) < 0.5] /= 20
    return {
        "boxes": np.concatenate([centres - sizes / 2, centres + sizes / 2], 1).astype(np.float32),
        "class_scores": scores.astype(np.float32),
        "coefficients": np.arange(priors, dtype=np.float32)[:, None],
        "prototypes": np.zeros((4, 4, 1), np.float32),
    }


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def fast(boxes, ranked):
    """Keep a box unless any better one overlaps it."""
    return [
        prior
        for rank, prior in enumerate(ranked)
        if all(iou(boxes[better], boxes[prior]) <= 0.5 for better in ranked[:rank])
    ]


def greedy(boxes, ranked):
    """Keep a box unless a kept one overlaps it."""
    kept = []
    for prior in ranked:
        if all(iou(boxes[q], boxes[prior]) <= 0.5 for q in kept):
            kept.append(prior)
    return kept


def rows(selection):
    return list(
        zip(
            selection.scores.tolist(),
            selection.class_ids.tolist(),
            selection.coefficients[:, 0].astype(int).tolist(),
            strict=True,
        )
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top_k", [200, 20])
def test_standard_nms_equals_the_slow_loop(seed, top_k):
    given = random_predictions(seed)
    boxes, scores = given["boxes"].astype(float), given["class_scores"]
    expected = []
    for class_id in range(3):
        ranked = [
            p for p in np.argsort(-scores[:, class_id]) if scores[p, class_id] > np.float32(0.1)
        ]
        for prior in greedy(boxes, ranked[:top_k]):
            expected.append((float(scores[prior, class_id]), class_id, int(prior)))
    config = PostprocessConfig(score_threshold=0.1, nms="greedy", top_k=top_k)
    assert rows(select_detections(given, config)) == sorted(expected, reverse=True)[:100]


def test_standard_nms_keeps_a_box_that_only_a_suppressed_one_overlaps():
    boxes = np.array([[0.0, 0, 1.0, 1], [0.2, 0, 1.2, 1], [0.4, 0, 1.4, 1]], np.float32)
    assert greedy_nms(boxes, 0.5).tolist() == [True, False, True]
    assert greedy_nms(boxes[:0], 0.5).tolist() == []


def test_standard_nms_keeps_points_that_overlap_nothing():
    assert greedy_nms(np.full((2, 4), 0.5, np.float32), 0.5).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top_k", [200, 20])
def test_cross_class_nms_equals_the_slow_loop(seed, top_k):
    given = random_predictions(seed)
    boxes, scores = given["boxes"].astype(float), given["class_scores"]
    best = scores.max(axis=1)
    ranked = [p for p in np.argsort(-best) if best[p] > np.float32(0.1)][:top_k]
    expected = [(float(best[p]), int(scores[p].argmax()), int(p)) for p in fast(boxes, ranked)]
    config = PostprocessConfig(score_threshold=0.1, nms="cross_class", top_k=top_k)
    assert rows(select_detections(given, config)) == expected


def test_cross_class_nms_keeps_one_class_per_position():
    given = {
        "boxes": np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.float32),
        "class_scores": np.array([[0.6, 0.7], [0.9, 0.1]], np.float32),
        "coefficients": np.arange(2, dtype=np.float32)[:, None],
    }
    config = PostprocessConfig(nms="cross_class")
    assert rows(select_detections(given, config)) == [(pytest.approx(0.9), 0, 1)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top_k, limit", [(200, 1000), (20, 1000), (200, 9)])
def test_all_classes_of_good_priors_equal_the_reference(seed, top_k, limit):
    given = random_predictions(seed)
    boxes, scores = given["boxes"].astype(float), given["class_scores"]
    good = np.flatnonzero(scores.max(axis=1) > np.float32(0.1))
    expected = []
    for class_id in range(3):
        ranked = sorted(good, key=lambda p, c=class_id: -scores[p, c])[:top_k]
        for prior in fast(boxes, ranked):
            expected.append((float(scores[prior, class_id]), class_id, int(prior)))
    config = PostprocessConfig(
        score_threshold=0.1, all_classes=True, top_k=top_k, max_detections=limit
    )
    found = rows(select_detections(given, config))
    assert found == sorted(expected, reverse=True)[:limit]
    if (top_k, limit) == (200, 1000):
        assert min(found)[0] < 0.1  # there is no second threshold


@pytest.mark.parametrize("nms", ["fast", "cross_class", "greedy"])
def test_every_nms_accepts_an_image_without_candidates(nms):
    config = PostprocessConfig(score_threshold=1.0, nms=nms)
    assert len(select_detections(random_predictions(0), config)) == 0


def test_all_classes_require_fast_nms():
    with pytest.raises(ConfigError, match="all_classes requires nms 'fast'"):
        PostprocessConfig(all_classes=True, nms="greedy")


def test_a_mask_that_is_not_cropped_covers_the_image():
    prototypes = np.full((10, 12, 1), 3.0, np.float32)
    box = np.array([[0.4, 0.4, 0.6, 0.6]], np.float32)
    whole = assemble_masks(prototypes, np.ones((1, 1), np.float32), box, crop=False).dense()
    assert whole.shape == (1, 10, 12)
    np.testing.assert_allclose(whole, 1 / (1 + np.exp(-3)), rtol=1e-6)
    nothing = np.zeros((0, 4), np.float32)
    none = assemble_masks(prototypes, np.zeros((0, 1), np.float32), nothing, crop=False)
    assert none.dense().shape == (0, 10, 12)


@pytest.fixture
def one_cup(tiny):
    """Return a cup in the upper left part, whose predicted mask IoU is 0.5."""
    outputs = tiny.host_outputs(
        [[0.1, 0.1, 0.255, 0.255]], [[0.8, 0.0]], prototypes=np.full((64, 64, 1), 5.0)
    )
    backend = tiny.FakeBackend(detect=outputs, rescore={"mask_iou": np.array([0.5], np.float32)})
    return Segmenter(backend, tiny.describe(tiny.TINY_RESCORED))


def test_options_reach_masks_scores_and_boxes(one_cup):
    image = np.zeros((100, 100, 3), np.uint8)
    plain = one_cup.segment(image)
    assert plain.mask_scores.tolist() == pytest.approx([0.4])
    np.testing.assert_allclose(plain.boxes, [[10, 10, 25.5, 25.5]], rtol=1e-6)
    assert plain[0].mask.sum() < 600
    config = PostprocessConfig(crop_masks=False, rescore_masks=False, integer_boxes=True)
    changed = one_cup.segment(image, postprocess=config)
    assert changed.mask_scores.tolist() == pytest.approx([0.8])
    assert changed.boxes.tolist() == [[10, 10, 25, 25]]
    assert changed[0].mask.all()


def test_a_graph_with_nms_inside_refuses_another_nms(tiny):
    description = tiny.describe(tiny.TINY, form="with_nms")
    segmenter = Segmenter(tiny.FakeBackend(), description)
    image = np.zeros((20, 30, 3), np.uint8)
    for config in (
        PostprocessConfig(nms="greedy"),
        PostprocessConfig(top_k=100),
        REFERENCE_POSTPROCESS,
    ):
        with pytest.raises(ConfigError, match="has a fixed .*--nms host"):
            segmenter.segment(image, postprocess=config)
        with pytest.raises(ConfigError, match="has a fixed .*--nms host"):
            segmenter.stream(postprocess=config)
        with pytest.raises(ConfigError, match="has a fixed .*--nms host"):
            Segmenter(tiny.FakeBackend(), description, config)


def test_a_graph_that_crops_masks_refuses_uncropped_ones(tiny):
    description = tiny.describe(tiny.TINY, form="with_masks")
    message = "crop_masks is False.*fixed crop_masks of True.*--masks host"
    with pytest.raises(ConfigError, match=message):
        Segmenter(tiny.FakeBackend(), description, PostprocessConfig(crop_masks=False))


def test_the_number_of_candidates_of_a_graph_is_that_of_its_export(tiny):
    description = replace(tiny.describe(tiny.TINY, form="with_nms"), top_k=50)
    Segmenter(tiny.FakeBackend(), description)  # the default is nobody's choice
    Segmenter(tiny.FakeBackend(), description, PostprocessConfig(top_k=50))
    message = "top_k is 60, .* fixed top_k of 50. .*--top-k 60, .*--nms host"
    with pytest.raises(ConfigError, match=message):
        Segmenter(tiny.FakeBackend(), description, PostprocessConfig(top_k=60))


def test_detections_are_limited_to_what_the_model_outputs(tiny):
    boxes = [[i / 10, 0, (i + 1) / 10, 1] for i in range(9)]
    outputs = tiny.host_outputs(boxes, [[0.9, 0.0]] * 9, prototypes=np.ones((8, 10, 1)))
    description = tiny.describe(tiny.TINY, max_detections=4)
    segmenter = Segmenter(tiny.FakeBackend(detect=outputs), description)
    assert len(segmenter.segment(np.zeros((20, 30, 3), np.uint8))) == 4
    config = PostprocessConfig(max_detections=2)
    assert len(segmenter.segment(np.zeros((20, 30, 3), np.uint8), postprocess=config)) == 2


@pytest.mark.parametrize(
    "case, size",
    [
        ("yolact_resnet50", (320, 480)),
        ("yolact_plus_resnet50", (384, 384)),
        ("yolact_edge_mobilenetv2", (320, 480)),
    ],
)
def test_integer_boxes_are_those_of_the_reference(tiny, case, size):
    golden = recorded.arrays(case)
    boxes, expected = golden["det_box"], golden["post_boxes"]
    # All boxes at once, as finished detections of a graph.
    rows = len(boxes)
    outputs = {
        "boxes": boxes,
        "scores": np.full(rows, 0.9, np.float32),
        "mask_scores": np.full(rows, 0.9, np.float32),
        "class_ids": np.zeros(rows, np.int64),
        "coefficients": np.ones((rows, 1), np.float32),
        "prototypes": np.ones((8, 10, 1), np.float32),
    }
    segmenter = Segmenter(
        tiny.FakeBackend(detect=outputs),
        tiny.describe(tiny.TINY, form="with_nms"),
        PostprocessConfig(integer_boxes=True),
    )
    found = segmenter.segment(np.zeros((*size, 3), np.uint8))
    np.testing.assert_array_equal(found.boxes, expected)
