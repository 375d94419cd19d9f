"""Define a graph from images to finished detections, for TensorRT.

It does the same as `runtime.postprocess` in operators of every runtime: without NonZero and
NonMaxSuppression, and with fixed shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolact_ros.config import PostprocessConfig
from yolact_ros.model.boxes import box_iou, decode_boxes
from yolact_ros.model.graphs.detect import Predictions, normalise
from yolact_ros.model.yolact import Yolact

# Number of priors in NMS; at a threshold of 0.05, networks leave a few hundred.
CANDIDATES = 1000


class DetectionTensors(NamedTuple):
    """Holds N = max_detections rows, best first; rows without a detection have score -1.

    In a graph for B > 1 images, every shape starts with B.

    Attributes:
        boxes: (N, 4) x1 y1 x2 y2 as fractions of the image, not clipped.
        scores: (N,) class score.
        mask_scores: (N,) class score times predicted mask IoU; equal to `scores` without
            re-scoring.
        class_ids: (N,) int32, 0-based.
        coefficients: (N, K) in [-1, 1].
        prototypes: (Hp, Wp, K), non-negative.
    """

    boxes: Tensor
    scores: Tensor
    mask_scores: Tensor
    class_ids: Tensor
    coefficients: Tensor
    prototypes: Tensor


class MaskTensors(NamedTuple):
    """Holds `DetectionTensors` with assembled masks instead of prototypes.

    Attributes:
        masks: (N, Hp, Wp) uint8, 255 times the soft mask, zero outside the box padded by one cell.
    """

    boxes: Tensor
    scores: Tensor
    mask_scores: Tensor
    class_ids: Tensor
    coefficients: Tensor
    masks: Tensor


class DetectWithNmsGraph(nn.Module):
    """Implements the graph `detect` with NMS."""

    def __init__(self, network: Yolact, config: PostprocessConfig, *, masks: bool = False) -> None:
        """Add NMS to a network.

        Args:
            network: network in evaluation mode.
            config: thresholds and limits, which are fixed in the graph.
            masks: return `MaskTensors`.
        """
        super().__init__()
        self.network = network
        self.config = config
        self.masks = masks
        self.outputs = MaskTensors._fields if masks else DetectionTensors._fields

    def forward(self, image: Tensor) -> DetectionTensors | MaskTensors:
        """Run on image (B, H, W, 3) uint8 BGR of the network's input size."""
        return self.finish(self.network.pyramid(normalise(image, self.network.config)))

    def finish(self, pyramid: tuple[Tensor, ...]) -> DetectionTensors | MaskTensors:
        """Detect objects in P3..P7 of B images."""
        output = self.network.predict(pyramid)
        predictions = Predictions(
            boxes=decode_boxes(output.box_offsets, self.network.priors),
            class_scores=output.class_logits.softmax(dim=-1)[..., 1:],
            coefficients=output.coefficients,
            prototypes=output.prototypes,
        )
        boxes, scores, class_ids, coefficients = batched_fast_nms(predictions, self.config)
        mask_scores, last = scores, predictions.prototypes
        rescoring = self.network.mask_rescoring
        if self.masks or rescoring is not None:
            masks = soft_masks(predictions.prototypes, coefficients, boxes)
            last = masks if self.masks else last
        if rescoring is not None:
            iou = rescoring(masks.flatten(0, 1)[:, None])
            iou = iou.gather(1, class_ids.reshape(-1, 1)).reshape(scores.shape)
            mask_scores = torch.where(scores > 0, scores * iou, scores)
        kind = MaskTensors if self.masks else DetectionTensors
        tensors = [boxes, scores, mask_scores, class_ids.to(torch.int32), coefficients, last]
        if scores.shape[0] == 1:
            tensors = [tensor[0] for tensor in tensors]
        if self.masks:  # in the end: TensorRT has uint8 only for inputs and outputs of a graph
            tensors[-1] = to_bytes(tensors[-1])
        return kind(*tensors)


def batched_fast_nms(
    predictions: Predictions, config: PostprocessConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run Fast NMS (YOLACT section 3.3) on B images, with fixed shapes.

    A suppressed box suppresses others, as in the reference. Pairs of prior and class that do not
    exceed `config.score_threshold` get score -1; they rank below all others, so they suppress
    none.

    Only the `CANDIDATES` priors with the best class scores are considered. The result is exact if
    at most that many priors exceed the threshold.

    Args:
        predictions: predictions whose shapes start with B.
        config: thresholds and limits.

    Returns:
        boxes (B, N, 4), scores (B, N), class_ids (B, N) int64, coefficients (B, N, K);
        N = max_detections.
    """
    chosen, boxes, scores = _candidates(predictions)
    scores = scores.transpose(1, 2)  # (B, C, n)
    batch, num_classes, count = scores.shape
    top_scores, top_rows = scores.topk(min(config.top_k, count), dim=2)  # (B, C, k)
    rank_count = top_scores.shape[2]
    top_rows = top_rows.reshape(batch, -1)
    top_boxes = take_rows(boxes, top_rows).reshape(batch * num_classes, rank_count, 4)
    # With any better-ranked box.
    overlap = box_iou(top_boxes, top_boxes).triu(diagonal=1).amax(dim=1)
    overlap = overlap.reshape(top_scores.shape)
    kept = (overlap <= config.nms_iou_threshold) & (top_scores > config.score_threshold)
    ranked = torch.where(kept, top_scores, torch.full_like(top_scores, -1.0)).reshape(batch, -1)
    best, places = ranked.topk(min(config.max_detections, ranked.shape[1]))  # (B, N)
    rows = take_rows(top_rows[..., None], places)[..., 0]
    class_of_place = torch.arange(num_classes, device=places.device).repeat_interleave(rank_count)
    class_ids = class_of_place.index_select(0, places.reshape(-1)).reshape(places.shape)
    coefficients = take_rows(predictions.coefficients, take_rows(chosen[..., None], rows)[..., 0])
    return take_rows(boxes, rows), best, class_ids, coefficients


def _candidates(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """Return the `CANDIDATES` priors with the best class scores, best first.

    NMS, which runs for each class, then handles only a fraction of the priors.

    Returns:
        Their indices (B, n) int64, boxes (B, n, 4) and class scores (B, n, C).
    """
    best = predictions.class_scores.amax(dim=2)  # (B, P)
    chosen = best.topk(min(CANDIDATES, best.shape[1]), dim=1).indices
    return (
        chosen,
        take_rows(predictions.boxes, chosen),
        take_rows(predictions.class_scores, chosen),
    )


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Take the rows (B, m) from values (B, n, D) of each image; returns (B, m, D)."""
    batch, count, width = values.shape
    if batch > 1:
        rows = rows + torch.arange(0, batch * count, count, device=rows.device)[:, None]
    taken = values.reshape(-1, width).index_select(0, rows.reshape(-1))
    return taken.reshape(batch, -1, width)


def soft_masks(prototypes: Tensor, coefficients: Tensor, boxes: Tensor) -> Tensor:
    """Combine prototypes and crop each mask to its box (reference: `lincomb_mask_loss`, `crop`).

    Args:
        prototypes: (B, Hp, Wp, K).
        coefficients: (B, N, K), N >= 1, since the number of rows in a graph is fixed.
        boxes: (B, N, 4) x1 y1 x2 y2 as fractions of the image.

    Returns:
        (B, N, Hp, Wp) in [0, 1], zero outside the boxes padded by one cell.
    """
    batch, height, width, depth = prototypes.shape
    # A 1x1 convolution with a group for each image, because TensorRT lacks a matrix product in
    # float on some GPUs.
    planes = prototypes.permute(0, 3, 1, 2).reshape(1, batch * depth, height, width)
    kernels = coefficients.reshape(-1, depth, 1, 1)
    masks = torch.nn.functional.conv2d(planes, kernels, groups=batch).sigmoid()
    masks = masks.reshape(batch, -1, height, width)
    return masks * inside_boxes(boxes, (height, width)).to(masks.dtype)


def to_bytes(masks: Tensor) -> Tensor:
    """Round 255 times masks in [0, 1] to uint8, and halves down.

    A value of 0.5, which cells without any prototype have, then stays at or below the default
    threshold, and a larger one stays above it.
    """
    return (masks * 255 - 0.5).ceil().to(torch.uint8)


def inside_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return which cells are inside each box, padded by one cell (reference: `crop`).

    Args:
        boxes: (B, N, 4) x1 y1 x2 y2 as fractions of the image.
        size: (Hp, Wp).

    Returns:
        (B, N, Hp, Wp) bool.
    """
    height, width = size
    x1, x2 = _padded_span(boxes[..., 0], boxes[..., 2], width)
    y1, y2 = _padded_span(boxes[..., 1], boxes[..., 3], height)
    columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype)
    inside_x = (columns >= x1[..., None]) & (columns < x2[..., None])
    inside_y = (rows >= y1[..., None]) & (rows < y2[..., None])
    return inside_y[..., :, None] & inside_x[..., None, :]


def _padded_span(first: Tensor, second: Tensor, size: int) -> tuple[Tensor, Tensor]:
    first, second = first * size, second * size
    low = (torch.minimum(first, second) - 1).clamp(min=0)
    return low, (torch.maximum(first, second) + 1).clamp(max=size)
