"""Describe the detections of one image for JSON files and for YOLO text files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.rle import encode_rle


def describe(
    name: str, found: Detections, classes: tuple[str, ...], stamp: float | None
) -> dict[str, Any]:
    """Describe one image with boxes in pixels and masks as COCO RLE.

    `class_id` starts at 1, as in the node's messages. `keyframe_reason` is null for single images
    and for frames that are not keyframes; `track_id` is 0 for single images and for objects of a
    video that are not confirmed yet.

    Args:
        name: name of the image.
        found: detections in that image.
        classes: class names of the model.
        stamp: seconds since the start for a video, the message's stamp for a bag, or None.
    """
    instances = [
        {
            "track_id": 0 if found.track_ids is None else int(found.track_ids[i]),
            "class_id": int(found.labels[i]),
            "class_name": classes[found.class_ids[i]],
            "score": round(float(found.scores[i]), 6),
            "mask_score": round(float(found.mask_scores[i]), 6),
            "box": [round(float(value), 3) for value in found.boxes[i]],
            "segmentation": encode_rle(found.masks[i], found.mask_rois[i], found.image_size),
        }
        for i in range(len(found))
    ]
    height, width = found.image_size
    return {
        "image": name,
        "height": height,
        "width": width,
        "stamp": stamp,
        "frame_type": found.frame_type,
        "keyframe_reason": found.keyframe_reason,
        "instances": instances,
    }


def yolo_rows(detections: Detections) -> list[str]:
    """Return one row per instance: class id counted from 0, then x y of its outline as fractions.

    Parts of a mask are joined by lines of zero width, so that an instance stays one polygon; holes
    are filled. An instance without a pixel has no row.
    """
    height, width = detections.image_size
    rows = []
    for class_id, mask, roi in zip(
        detections.class_ids, detections.masks, detections.mask_rois, strict=True
    ):
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1
        )
        parts = [contour[:, 0].astype(np.float64) for contour in contours]
        if not parts:
            continue
        # To each part and around it, then back along the same points.
        way = [np.vstack([part, part[:1]]) for part in parts]
        outline = np.vstack([*way, *(part[:1] for part in parts[-2::-1])])
        points = (outline + roi[:2] + 0.5) / (width, height)
        numbers = " ".join(f"{value:.6f}" for value in points.ravel())
        rows.append(f"{class_id} {numbers}")
    return rows
