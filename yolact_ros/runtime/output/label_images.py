"""Paint label images; where masks overlap, the best detection wins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from yolact_ros.runtime.detections import Detections


def label_image(
    detections: Detections, values: Sequence[int], *, dtype: type, background: int = 0
) -> np.ndarray:
    """Paint one value per detection into an image of the background's value.

    Args:
        detections: detections of one image.
        values: value of each detection, in order; values that exceed `dtype` become its maximum.
        dtype: an unsigned integer type.
        background: value of the pixels without an object.

    Returns:
        (height, width) of the source image.
    """
    image: np.ndarray = np.full(detections.image_size, background, dtype)
    most = np.iinfo(dtype).max
    for index in reversed(detections.best_first):
        x1, y1, x2, y2 = detections.mask_rois[index]
        np.copyto(
            image[y1:y2, x1:x2], dtype(min(values[index], most)), where=detections.masks[index]
        )
    return image


def instance_image(detections: Detections) -> np.ndarray:
    """Paint (height, width) uint16: 0 background, else k for `detections.best_first[k - 1]`."""
    numbers = np.empty(len(detections), np.int64)
    numbers[detections.best_first] = np.arange(1, len(detections) + 1)
    return label_image(detections, numbers.tolist(), dtype=np.uint16)


def class_image(detections: Detections) -> np.ndarray:
    """Paint (height, width) uint8: 0 background, else the label; 255 for labels from 255 on."""
    return label_image(detections, detections.labels.tolist(), dtype=np.uint8)


def confidence_image(detections: Detections, *, background: float) -> np.ndarray:
    """Paint the confidence of each pixel's class.

    Args:
        detections: detections of one image.
        background: score of the pixels without an object, in [0, 1].

    Returns:
        (height, width) uint8: 255 times the mask score or `background`, at least 1.
    """
    scores = np.append(detections.mask_scores.astype(np.float64), background)
    *objects, empty = np.clip(np.rint(scores * 255), 1, 255).astype(int).tolist()
    return label_image(detections, objects, dtype=np.uint8, background=empty)
