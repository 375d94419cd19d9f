"""Overlays: masks, boxes and labels on a copy of the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections

MASK_OPACITY = 0.45  # of the reference's display
FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(class_id: int) -> tuple[int, int, int]:
    """A vivid colour (B, G, R) that a class keeps for ever.

    Neighbouring ids lie far apart on the colour circle (steps of the golden angle).
    """
    hue = (class_id * 0.618034 + 0.02) % 1.0
    pixel = np.array([[[int(hue * 180), 190 + 60 * (class_id % 2), 255]]], np.uint8)
    blue, green, red = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def draw_detections(
    image: np.ndarray, detections: Detections, class_names: Sequence[str]
) -> np.ndarray:
    """Draw the instances of an image, the best on top.

    Args:
        image: (H, W, 3) uint8 BGR.
        detections: of this image.
        class_names: name of each class id.

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    canvas = np.array(image, order="C")
    scale = max(0.4, min(image.shape[:2]) / 1100)
    thickness = max(1, round(scale * 2))
    order = range(len(detections) - 1, -1, -1)
    for i in order:
        _blend_mask(canvas, detections, i, thickness=thickness)
    for i in order:
        _draw_label(canvas, detections, i, class_names=class_names, scale=scale)
    return canvas


def _blend_mask(canvas: np.ndarray, detections: Detections, index: int, *, thickness: int) -> None:
    colour = class_colour(int(detections.class_ids[index]))
    x1, y1, x2, y2 = detections.mask_rois[index].tolist()
    mask = detections.masks[index]
    if mask.size:
        region = canvas[y1:y2, x1:x2]
        tinted = cv2.addWeighted(
            region, 1 - MASK_OPACITY, np.full_like(region, colour), MASK_OPACITY, 0
        )
        cv2.copyTo(tinted, mask.view(np.uint8), region)
        outlines, _ = cv2.findContours(
            mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x1, y1)
        )
        cv2.drawContours(canvas, outlines, -1, colour, thickness, cv2.LINE_AA)


def _draw_label(
    canvas: np.ndarray,
    detections: Detections,
    index: int,
    *,
    class_names: Sequence[str],
    scale: float,
) -> None:
    class_id = int(detections.class_ids[index])
    colour = class_colour(class_id)
    x1, y1, x2, y2 = (int(v) for v in detections.boxes[index].round())
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
    text = f"{class_names[class_id]} {detections.mask_scores[index]:.2f}"
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, 1)
    top = max(y1 - height - baseline - 2, 0)
    left = max(min(x1, canvas.shape[1] - width - 4), 0)
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + baseline + 2), colour, -1)
    dark = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 128
    ink = (0, 0, 0) if dark else (255, 255, 255)
    cv2.putText(canvas, text, (left + 2, top + height + 1), FONT, scale, ink, 1, cv2.LINE_AA)
