"""From a camera image to finished detections inside one graph, for TensorRT.

The rule is that of `runtime.postprocess`, in operators that every runtime has: no NonZero, no
NonMaxSuppression, all shapes fixed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolact_ros.config import PostprocessConfig
from yolact_ros.model.inference import Predictions, decode_boxes, normalise
from yolact_ros.model.yolact import Yolact


class DetectionTensors(NamedTuple):
    """N = max_detections rows, best first; rows without a detection have score -1."""

    boxes: Tensor
    """(N, 4) x1 y1 x2 y2 as fractions of the image, not clipped."""
    scores: Tensor
    """(N,) class score."""
    mask_scores: Tensor
    """(N,) class score times predicted mask IoU; equal to `scores` without re-scoring."""
    class_ids: Tensor
    """(N,) int64, 0-based."""
    coefficients: Tensor
    """(N, K) in [-1, 1]."""
    prototypes: Tensor
    """(Hp, Wp, K), zero or more."""


class DetectionGraph(nn.Module):
    """The graph `detect` of a bundle whose post-processing is `graph`."""

    outputs = DetectionTensors._fields

    def __init__(self, network: Yolact, config: PostprocessConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def forward(self, image: Tensor) -> DetectionTensors:
        """Run on image (1, H, W, 3) uint8 BGR of the network's input size."""
        return self.finish(self.network.pyramid(normalise(image, self.network.config)))

    def finish(self, pyramid: tuple[Tensor, ...]) -> DetectionTensors:
        """Decode, choose and score what is in P3..P7 of one image."""
        output = self.network.predict(pyramid)
        predictions = Predictions(
            boxes=decode_boxes(output.box_offsets[0], self.network.priors),
            class_scores=output.class_logits[0].softmax(dim=-1)[:, 1:],
            coefficients=output.coefficients[0],
            prototypes=output.prototypes[0],
        )
        boxes, scores, class_ids, coefficients = fast_nms(predictions, self.config)
        mask_scores = scores
        if self.network.mask_rescoring is not None:
            masks = soft_masks(predictions.prototypes, coefficients, boxes)
            iou = self.network.mask_rescoring(masks[:, None]).gather(1, class_ids[:, None])[:, 0]
            mask_scores = torch.where(scores > 0, scores * iou, scores)
        return DetectionTensors(
            boxes, scores, mask_scores, class_ids, coefficients, predictions.prototypes
        )


def fast_nms(
    predictions: Predictions, config: PostprocessConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fast NMS (YOLACT section 3.3) with fixed shapes.

    A suppressed box suppresses others, as in the reference. Pairs of prior and class that do not
    exceed `config.score_threshold` get score -1; they rank behind all others, so they cannot
    suppress any.

    Returns:
        boxes (N, 4), scores (N,), class_ids (N,) int64, coefficients (N, K); N = max_detections.
    """
    scores = predictions.class_scores.t()  # (C, P)
    num_classes, num_priors = scores.shape
    top_scores, top_priors = scores.topk(min(config.top_k, num_priors), dim=1)  # (C, k)
    rank_count = top_scores.shape[1]
    boxes = predictions.boxes[top_priors.reshape(-1)].reshape(num_classes, rank_count, 4)
    overlap = box_iou(boxes).triu(diagonal=1).amax(dim=1)  # with any better-ranked box
    kept = (overlap <= config.nms_iou_threshold) & (top_scores > config.score_threshold)
    ranked = torch.where(kept, top_scores, torch.full_like(top_scores, -1.0)).reshape(-1)
    best, places = ranked.topk(min(config.max_detections, ranked.shape[0]))
    priors = top_priors.reshape(-1)[places]
    class_ids = torch.div(places, rank_count, rounding_mode="floor")
    return predictions.boxes[priors], best, class_ids, predictions.coefficients[priors]


def box_iou(boxes: Tensor) -> Tensor:
    """(C, k, 4) x1 y1 x2 y2 to (C, k, k) intersection over union, no epsilon: 0/0 is NaN."""
    top_left = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    bottom_right = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return intersection / (areas[:, :, None] + areas[:, None, :] - intersection)


def soft_masks(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Combine prototypes and crop to the boxes (reference: `lincomb_mask_loss`, `crop`).

    Args:
        prototypes: (Hp, Wp, K).
        coefficients: (N, K), at least one: the number of rows in a graph is fixed.
        boxes: (N, 4) x1 y1 x2 y2 as fractions of the image.

    Returns:
        (N, Hp, Wp) in [0, 1], zero outside each box padded by one cell.
    """
    height, width = prototypes.shape[:2]
    # A 1x1 convolution rather than a matrix product, which TensorRT lacks in float on some GPUs.
    image = prototypes.permute(2, 0, 1)[None]
    masks = torch.nn.functional.conv2d(image, coefficients[:, :, None, None])[0].sigmoid()
    x1, x2 = _padded_span(boxes[:, 0], boxes[:, 2], width)
    y1, y2 = _padded_span(boxes[:, 1], boxes[:, 3], height)
    columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype)
    inside_x = (columns >= x1[:, None]) & (columns < x2[:, None])
    inside_y = (rows >= y1[:, None]) & (rows < y2[:, None])
    return masks * (inside_y[:, :, None] & inside_x[:, None, :]).to(masks.dtype)


def _padded_span(first: Tensor, second: Tensor, size: int) -> tuple[Tensor, Tensor]:
    first, second = first * size, second * size
    low = (torch.minimum(first, second) - 1).clamp(min=0)
    return low, (torch.maximum(first, second) + 1).clamp(max=size)
