"""Detections, masks and mask scores match those of the public reference.

Two programs that round differently may rank two candidates of nearly equal score the other way
round, which matters at the two limits, top-k and the IoU threshold. So a detection is *certain* if
it survives with both limits a little tighter and a little looser; all certain ones must be found.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yolact_ros.config import PostprocessConfig  # noqa: E402
from yolact_ros.model.boxes import decode_boxes  # noqa: E402
from yolact_ros.model.graphs import detect_with_nms  # noqa: E402
from yolact_ros.model.graphs.detect import Predictions, RescoreGraph  # noqa: E402
from yolact_ros.model.graphs.detect_with_nms import batched_fast_nms  # noqa: E402
from yolact_ros.runtime.enlarge import enlarge_masks  # noqa: E402
from yolact_ros.runtime.masks import assemble_masks  # noqa: E402
from yolact_ros.runtime.postprocess import select_detections  # noqa: E402
from yolact_ros.runtime.preprocess import Placement  # noqa: E402

CASES = ("yolact_resnet50", "yolact_plus_resnet50", "yolact_edge_mobilenetv2")
REFERENCE = PostprocessConfig(score_threshold=0.05)


class Raw(NamedTuple):
    """Holds a case with our network's predictions for its image."""

    case: object
    predictions: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=CASES)
def raw(request, parity) -> Raw:
    case = parity(request.param)
    with torch.no_grad():
        output = case.network(case.prepare(case.image))
    predictions = {
        "boxes": decode_boxes(output.box_offsets[0], case.network.priors),
        "class_scores": output.class_logits[0].softmax(dim=-1)[:, 1:],
        "coefficients": output.coefficients[0],
        "prototypes": output.prototypes[0],
    }
    return Raw(case, {name: tensor.numpy() for name, tensor in predictions.items()})


def rows_of(boxes, class_ids, wanted_boxes, wanted_ids):
    """Return the row that equals each wanted detection, or -1."""
    distance = np.abs(wanted_boxes[:, None] - boxes[None]).max(axis=2)
    distance[wanted_ids[:, None] != class_ids[None]] = np.inf
    return np.where(distance.min(axis=1) < 1e-4, distance.argmin(axis=1), -1)


def test_the_same_detections_as_the_reference(raw):
    golden = raw.case.golden
    tighter = replace(REFERENCE, top_k=199, nms_iou_threshold=0.4999, max_detections=99)
    looser = replace(REFERENCE, top_k=201, nms_iou_threshold=0.5001, max_detections=1000)
    possible = select_detections(raw.predictions, looser)
    rows = rows_of(possible.boxes, possible.class_ids, golden["det_box"], golden["det_class"])
    assert (rows >= 0).all(), "the reference found what we would not even with looser limits"
    np.testing.assert_allclose(possible.scores[rows], golden["det_score"], atol=1e-5)
    np.testing.assert_allclose(possible.coefficients[rows], golden["det_mask"], atol=1e-4)

    kept = select_detections(raw.predictions, tighter)
    sure = kept.scores > golden["det_score"][-1] + 1e-5
    found = rows_of(golden["det_box"], golden["det_class"], kept.boxes, kept.class_ids)
    missing = [row for row in np.flatnonzero((found < 0) & sure) if not near_tie(raw, kept, row)]
    assert not missing
    assert len(golden["det_score"]) > 20


def near_tie(raw, kept, row) -> bool:
    """Return whether the reference could rank another candidate of the class 200th."""
    scores = raw.predictions["class_scores"][:, kept.class_ids[row]]
    rank_200, rank_201 = -np.sort(-scores)[199:201]
    return rank_200 - rank_201 < 1e-5 and abs(kept.scores[row] - rank_200) < 1e-5


def test_the_same_masks_as_the_reference(raw):
    golden = raw.case.golden
    height, width = raw.case.image.shape[:2]
    soft = assemble_masks(raw.predictions["prototypes"], golden["det_mask"], golden["det_box"])
    placement = Placement((height, width), (float(height), float(width)))
    regions, masks = enlarge_masks(soft, placement, 0.5)
    packed = golden["post_masks__packbits"]
    recorded = np.unpackbits(packed, axis=1, count=height * width).reshape(-1, height, width)
    assert recorded.sum() > 10_000
    for (x1, y1, x2, y2), mask, expected in zip(regions, masks, recorded, strict=True):
        frame = np.zeros((height, width), bool)
        frame[y1:y2, x1:x2] = mask
        assert (frame != expected.astype(bool)).sum() <= 4


def test_the_same_mask_scores_as_the_reference(raw):
    golden, network = raw.case.golden, raw.case.network
    if network.mask_rescoring is None:
        assert network.config.name in ("yolact_resnet50", "yolact_edge_mobilenetv2")
        return
    soft = assemble_masks(raw.predictions["prototypes"], golden["det_mask"], golden["det_box"])
    with torch.no_grad():
        iou = RescoreGraph(network.mask_rescoring)(
            torch.from_numpy(soft.dense()), torch.from_numpy(golden["det_class"])
        )
    expected = golden["post_mask_scores"]
    error = np.abs(golden["det_score"] * iou.numpy() - expected).max() / expected.max()
    assert error < 1e-4


def test_fast_nms_in_the_graph_gives_the_same(raw, monkeypatch):
    # Of these random weights, unlike trained ones, thousands of priors exceed the threshold.
    monkeypatch.setattr(detect_with_nms, "CANDIDATES", len(raw.predictions["boxes"]))
    batch = {name: torch.from_numpy(array)[None] for name, array in raw.predictions.items()}
    boxes, scores, class_ids, _ = (x[0] for x in batched_fast_nms(Predictions(**batch), REFERENCE))
    ours = select_detections(raw.predictions, REFERENCE)
    found = scores > 0
    np.testing.assert_allclose(scores[found], ours.scores, atol=1e-7)
    rows = rows_of(ours.boxes, ours.class_ids, boxes[found].numpy(), class_ids[found].numpy())
    assert (rows >= 0).all()
