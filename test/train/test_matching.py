"""Instances are matched to priors as by hand, by each rule alone, and as in the reference."""

from __future__ import annotations

import numpy as np
import pytest
import recorded

torch = pytest.importorskip("torch")

from yolact_ros.model.boxes import box_iou, decode_boxes  # noqa: E402
from yolact_ros.priors import make_priors  # noqa: E402
from yolact_ros.train.matching import (  # noqa: E402
    BACKGROUND,
    NEUTRAL,
    encode_offsets,
    match_priors,
)
from yolact_ros.variants import variant  # noqa: E402

NO_CROWD = torch.zeros(0, 4)


def centre_form(*boxes):
    corners = torch.tensor(boxes, dtype=torch.float32)
    return torch.cat(
        [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1
    )


def match(priors, boxes, class_ids, crowd=NO_CROWD):
    return match_priors(
        priors,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        class_ids=torch.tensor(class_ids, dtype=torch.int64),
        crowd_boxes=crowd,
    )


def test_iou_decides_between_positive_neutral_and_background():
    # One instance of size 1 x 1; priors shifted to the right share 1-s of 1+s.
    shifts = (0.0, 0.3, 0.4, 0.5, 0.9)  # IoU 1, 0.54, 0.43, 0.33, 0.05
    priors = centre_form(*[(s, 0.0, 1 + s, 1.0) for s in shifts])
    found = match(priors, [(0, 0, 1, 1)], [6])
    assert found.labels.tolist() == [7, 7, NEUTRAL, BACKGROUND, BACKGROUND]
    assert found.instances[:2].tolist() == [0, 0]


def test_every_instance_gets_a_prior_however_little_they_overlap():
    priors = centre_form((0, 0, 0.1, 0.1), (0.5, 0.5, 0.6, 0.6))
    found = match(priors, [(0.05, 0.05, 0.9, 0.9)], [2])
    assert sorted(found.labels.tolist()) == [BACKGROUND, 3]


def test_two_instances_with_the_same_best_prior_are_served_in_order_of_overlap():
    priors = centre_form((0.0, 0.0, 0.4, 0.4), (0.3, 0.3, 0.7, 0.7))
    # Both overlap the first prior most; the first instance equals it.
    found = match(priors, [(0.0, 0.0, 0.4, 0.4), (0.1, 0.1, 0.4, 0.4)], [0, 1])
    assert found.labels.tolist() == [1, 2]
    assert found.instances.tolist() == [0, 1]


def test_background_inside_a_crowd_is_neutral():
    priors = centre_form((0.0, 0.0, 0.2, 0.2), (0.5, 0.5, 0.7, 0.7), (0.15, 0.0, 0.35, 0.2))
    crowd = torch.tensor([[0.0, 0.0, 0.3, 0.3]])  # holds the first, three quarters of the last
    found = match(priors, [], [], crowd)
    assert found.labels.tolist() == [NEUTRAL, BACKGROUND, NEUTRAL]


def test_a_positive_inside_a_crowd_stays_positive():
    priors = centre_form((0.0, 0.0, 0.2, 0.2))
    found = match(priors, [(0.0, 0.0, 0.2, 0.2)], [4], torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    assert found.labels.tolist() == [5]


def test_an_image_without_instances_is_all_background():
    found = match(centre_form((0, 0, 1, 1), (0, 0, 0.5, 0.5)), [], [])
    assert found.labels.tolist() == [BACKGROUND, BACKGROUND]


def test_encoded_boxes_decode_to_themselves():
    generator = np.random.default_rng(3)
    corners = generator.uniform(0, 1, (20, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1) + 0.01], axis=1).astype(np.float32)
    priors = generator.uniform(0.1, 0.9, (20, 4)).astype(np.float32)
    ours = encode_offsets(torch.from_numpy(boxes), torch.from_numpy(priors))
    decoded = decode_boxes(ours, torch.from_numpy(priors))
    np.testing.assert_allclose(decoded, boxes, atol=1e-5)


def test_offsets_decode_by_hand():
    priors = torch.tensor([[0.5, 0.4, 0.2, 0.1], [0.5, 0.5, 0.2, 0.1]])
    # None; one prior to the right and e^(0.2 * 5 ln 2) = 2 times as wide.
    offsets = torch.tensor([[0.0, 0, 0, 0], [10, 0, 5 * np.log(2), 0]])
    expected = [[0.4, 0.35, 0.6, 0.45], [0.5, 0.45, 0.9, 0.55]]
    np.testing.assert_allclose(decode_boxes(offsets, priors), expected, rtol=1e-6)
    assert decode_boxes(offsets[:0], priors[:0]).shape == (0, 4)


def test_iou_by_hand():
    overlaps = box_iou(
        torch.tensor([[0.0, 0.0, 2.0, 2.0]]),
        torch.tensor([[1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0]]),
    )
    torch.testing.assert_close(overlaps, torch.tensor([[1 / 7, 0.0]]))


@pytest.mark.parametrize("case", ["yolact_resnet50", "yolact_plus_resnet50"])
def test_matching_equals_the_reference(case):
    golden = recorded.arrays(case)
    priors = torch.from_numpy(make_priors(variant(case)))
    targets = torch.from_numpy(golden["gt_target"]).float()
    crowds = int(golden["gt_num_crowds"][0])
    boxes, crowd = targets[:-crowds, :4], targets[-crowds:, :4]
    found = match_priors(priors, boxes, class_ids=targets[:-crowds, 4].long(), crowd_boxes=crowd)
    np.testing.assert_array_equal(found.labels, golden["match_conf"].reshape(-1))
    positive = (found.labels > 0).numpy()
    assert positive.sum() > 10
    np.testing.assert_array_equal(
        found.instances.numpy()[positive], golden["match_idx"].reshape(-1)[positive]
    )
    offsets = encode_offsets(boxes[found.instances], priors)[::230].numpy()
    sampled = positive[::230]
    np.testing.assert_allclose(
        offsets[sampled], golden["match_loc__every230"][sampled], rtol=1e-4, atol=1e-4
    )
