"""Convert outlines and names of instances to `foxglove_msgs/ImageAnnotations`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.draw import MASK_OPACITY, caption, class_colour

LINE_LOOP = 2  # of foxglove_msgs/PointsAnnotation
FONT_SIZE = 14.0


def make_annotations(
    new: Callable[..., Any], detections: Detections, class_names: Sequence[str], stamp: Any
) -> Any:
    """Build the message of one image.

    Args:
        new: creates a foxglove_msgs message from the name of its type and its fields; omitted
            fields are empty.
        detections: detections of that image; may be empty.
        class_names: class names of the model, in order.
        stamp: stamp of the image, by which viewers match image and annotations.
    """
    points, texts = [], []
    for index in range(len(detections) - 1, -1, -1):  # best last, so that they are drawn on top
        blue, green, red = (c / 255 for c in class_colour(int(detections.class_ids[index])))
        for outline in outlines(detections, index):
            points.append(
                new(
                    "PointsAnnotation",
                    timestamp=stamp,
                    type=LINE_LOOP,
                    points=[new("Point2", x=x, y=y) for x, y in outline.tolist()],
                    outline_color=new("Color", r=red, g=green, b=blue, a=1.0),
                    fill_color=new("Color", r=red, g=green, b=blue, a=MASK_OPACITY),
                    thickness=2.0,
                )
            )
        x, y = detections.boxes[index, :2].tolist()
        texts.append(
            new(
                "TextAnnotation",
                timestamp=stamp,
                position=new("Point2", x=x, y=y),
                text=caption(detections, index, class_names=class_names),
                font_size=FONT_SIZE,
                text_color=new("Color", r=1.0, g=1.0, b=1.0, a=1.0),
                background_color=new("Color", r=red, g=green, b=blue, a=0.8),
            )
        )
    return new("ImageAnnotations", timestamp=stamp, points=points, texts=texts)


def outlines(detections: Detections, index: int) -> list[np.ndarray]:
    """Return the outer outlines of an instance's mask, (K, 2) float64 x, y in pixels each."""
    mask = detections.masks[index]
    if not mask.any():
        return []
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corner = detections.mask_rois[index, :2]
    return [contour.reshape(-1, 2) + corner.astype(np.float64) for contour in found]
