"""Compute the fields of `Instance` messages, for ROS and for bags without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolact_ros.runtime.detections import Detections


def instance_fields(detections: Detections, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the plain fields of each `Instance`, best mask score first.

    Args:
        detections: detections of one image; may be empty.
        class_names: class names of the model, in its order.

    Returns:
        The fields of msg/Instance.msg, except that `roi` is a mapping of the fields of
        `RegionOfInterest`, and `mask` is the (height, width) bool mask of the region.
    """
    best_first = np.argsort(-detections.mask_scores, kind="stable")
    return [
        _fields(detections, int(index), number, class_names)
        for number, index in enumerate(best_first, start=1)
    ]


def _fields(
    detections: Detections, index: int, number: int, class_names: Sequence[str]
) -> dict[str, Any]:
    mask = detections.masks[index]
    left, top, right, bottom = detections.mask_rois[index].tolist()
    x_min, y_min, x_max, y_max = detections.boxes[index].tolist()
    return {
        "instance_id": number,
        "track_id": 0 if detections.track_ids is None else int(detections.track_ids[index]),
        "class_id": int(detections.labels[index]),
        "class_name": class_names[detections.class_ids[index]],
        "score": float(detections.mask_scores[index]),
        "x_min": x_min,
        "y_min": y_min,
        "x_max": x_max,
        "y_max": y_max,
        "area": int(np.count_nonzero(mask)),
        "roi": {"x_offset": left, "y_offset": top, "height": bottom - top, "width": right - left},
        "mask": mask,
    }
