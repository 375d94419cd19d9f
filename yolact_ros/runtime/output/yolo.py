"""Write masks as polygons in the text format of YOLO segmentation data sets."""

from __future__ import annotations

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections


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
