"""Fast NMS inside the graph matches a slow loop, and cropped soft masks match hand numbers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yolact_ros.config import PostprocessConfig  # noqa: E402
from yolact_ros.model.graphs import detect_with_nms  # noqa: E402
from yolact_ros.model.graphs.detect import Predictions  # noqa: E402


def batched_fast_nms(predictions, config):
    """Run the graph's Fast NMS on one image."""
    batch = Predictions(*(tensor[None] for tensor in predictions))
    return [tensor[0] for tensor in detect_with_nms.batched_fast_nms(batch, config)]


def soft_masks(prototypes, coefficients, boxes):
    """Compute the graph's soft masks of one image."""
    return detect_with_nms.soft_masks(prototypes[None], coefficients[None], boxes[None])[0]


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def slow_fast_nms(boxes, class_scores, config):
    """Compare all pairs (YOLACT section 3.3): any better box of a class suppresses a worse one."""
    found = []
    for class_id in range(class_scores.shape[1]):
        order = np.argsort(-class_scores[:, class_id], kind="stable")[: config.top_k]
        for rank, prior in enumerate(order):
            score = class_scores[prior, class_id]
            beaten = any(
                iou(boxes[prior], boxes[better]) > config.nms_iou_threshold
                for better in order[:rank]
            )
            if score > config.score_threshold and not beaten:
                found.append((-score, class_id, prior))
    return sorted(found)[: config.max_detections]


def random_predictions(seed, *, priors=60, classes=3):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(priors, 2, 2, generator=generator)
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 0.2], dim=1)
    return Predictions(
        boxes=boxes,
        class_scores=torch.rand(priors, classes, generator=generator),
        coefficients=torch.rand(priors, 4, generator=generator),
        prototypes=torch.rand(5, 5, 4, generator=generator),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limits", [(200, 100), (20, 100), (200, 7)])
def test_fast_nms_in_the_graph_equals_the_slow_loop(seed, limits):
    config = PostprocessConfig(score_threshold=0.4, top_k=limits[0], max_detections=limits[1])
    predictions = random_predictions(seed)
    boxes, scores, class_ids, coefficients = batched_fast_nms(predictions, config)
    expected = slow_fast_nms(predictions.boxes.numpy(), predictions.class_scores.numpy(), config)
    found = scores > 0
    assert int(found.sum()) == len(expected) > 0
    priors = [prior for _, _, prior in expected]
    np.testing.assert_array_equal(class_ids[found], [class_id for _, class_id, _ in expected])
    np.testing.assert_array_equal(boxes[found], predictions.boxes[priors])
    np.testing.assert_array_equal(coefficients[found], predictions.coefficients[priors])


def test_nms_among_the_best_priors_is_exact_if_no_more_exceed_the_threshold(monkeypatch):
    monkeypatch.setattr(detect_with_nms, "CANDIDATES", 40)
    config = PostprocessConfig(score_threshold=0.4, top_k=200, max_detections=100)
    predictions = random_predictions(3, priors=300)
    quiet = torch.arange(300) % 8 != 0  # 38 priors can exceed the threshold
    predictions.class_scores[quiet] *= 0.39
    boxes, scores, class_ids, _ = batched_fast_nms(predictions, config)
    expected = slow_fast_nms(predictions.boxes.numpy(), predictions.class_scores.numpy(), config)
    found = scores > 0
    assert int(found.sum()) == len(expected) > 10
    np.testing.assert_array_equal(class_ids[found], [class_id for _, class_id, _ in expected])
    np.testing.assert_array_equal(boxes[found], predictions.boxes[[p for _, _, p in expected]])


def test_a_suppressed_box_still_suppresses():
    # Each box overlaps its neighbour by 2/3, the first and the third only by 1/3.
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.2, 0.0, 1.2, 1.0], [0.4, 0.0, 1.4, 1.0]])
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    predictions = Predictions(boxes, scores, torch.zeros(3, 1), torch.zeros(2, 2, 1))
    _, kept, _, _ = batched_fast_nms(predictions, PostprocessConfig())
    assert (kept > 0).tolist() == [True, False, False]


def test_nothing_over_the_threshold_gives_no_detection():
    predictions = random_predictions(0)._replace(class_scores=torch.full((60, 3), 0.2))
    _, scores, _, _ = batched_fast_nms(predictions, PostprocessConfig(score_threshold=0.3))
    assert (scores == -1).all()


def test_a_box_without_area_is_not_kept_twice():
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5]] * 2)  # 0/0 is NaN, which fails the comparison
    scores = torch.tensor([[0.9], [0.8]])
    predictions = Predictions(boxes, scores, torch.zeros(2, 1), torch.zeros(2, 2, 1))
    _, kept, _, _ = batched_fast_nms(predictions, PostprocessConfig())
    assert (kept > 0).tolist() == [True, False]


def test_soft_masks_are_zero_outside_the_box_padded_by_one_cell():
    prototypes = torch.zeros(10, 10, 1)  # sigmoid(0) = 1/2 everywhere inside
    boxes = torch.tensor(
        [[0.35, 0.5, 0.55, 0.8]]
    )  # cells 3.5..5.5 and 5..8, padded 2.5..6.5, 4..9
    masks = soft_masks(prototypes, torch.ones(1, 1), boxes)
    expected = np.zeros((10, 10))
    expected[4:9, 3:7] = 0.5
    np.testing.assert_array_equal(masks[0], expected)


def test_bytes_keep_every_cell_on_its_side_of_the_threshold():
    """A cell without prototypes has exactly 1/2, which is not above the threshold of 1/2."""
    next_to_it = np.nextafter(np.float32(0.5), np.float32([0, 1]))
    values = np.concatenate([np.linspace(0, 1, 10_001, dtype=np.float32), [0.5], next_to_it])
    found = detect_with_nms.to_bytes(torch.from_numpy(values)).numpy()
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found / 255, values, rtol=0, atol=0.5 / 255 + 1e-7)
    np.testing.assert_array_equal(found * np.float32(1 / 255) > 0.5, values > 0.5)
    assert found[[0, 10_000, -3]].tolist() == [0, 255, 127]


def test_each_image_of_a_batch_is_treated_as_if_it_were_alone():
    config = PostprocessConfig(score_threshold=0.4, top_k=20, max_detections=7)
    images = [random_predictions(seed) for seed in range(3)]
    batch = Predictions(*(torch.stack(tensors) for tensors in zip(*images, strict=True)))
    together = detect_with_nms.batched_fast_nms(batch, config)
    masks = detect_with_nms.soft_masks(batch.prototypes, together[3], together[0])
    for i, image in enumerate(images):
        alone = batched_fast_nms(image, config)
        for ours, theirs in zip(together, alone, strict=True):
            assert torch.equal(ours[i], theirs)
        expected = soft_masks(image.prototypes, alone[3], alone[0])
        torch.testing.assert_close(masks[i], expected)
