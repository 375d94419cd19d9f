"""Describe the detections of one image for JSON files and for YOLO text files.

Masks are encoded as COCO's compressed run lengths, without pycocotools: alternating runs of zeros
and ones in column-major order, starting with zeros; from the fourth run on, the difference from
the run two before; each as a base-32 number, lowest digit first, in characters from `0` on
(cocodataset/cocoapi `common/maskApi.c::rleToString`).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections

DIGIT_BITS = 5
MAX_DIGITS = 7  # of a 32-bit number


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


def encode_rle(
    mask: np.ndarray, region: np.ndarray, image_size: tuple[int, int]
) -> dict[str, object]:
    """Encode a cropped mask.

    Args:
        mask: (h, w) bool.
        region: x1 y1 x2 y2, half-open, in pixels of the image: the region of the crop.
        image_size: (height, width) of the image.

    Returns:
        `{"size": [height, width], "counts": str}`, as in pycocotools and COCO's JSON files.
    """
    runs = mask_runs(mask, region, image_size)
    return {"size": [int(n) for n in image_size], "counts": compress_runs(runs)}


def mask_runs(mask: np.ndarray, region: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return the lengths of the runs of zeros and ones, column-major over the whole image.

    Returns:
        (R,) int64; the first counts zeros and may be 0, the others are positive.
    """
    height, width = image_size
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = mask.T
    steps = np.diff(columns, axis=1)
    first = (int(region[0]) + np.arange(mask.shape[1])) * height + int(region[1])
    column, row = np.nonzero(steps == 1)
    starts = first[column] + row
    column, row = np.nonzero(steps == -1)
    ends = first[column] + row
    # A run that reaches the bottom of a column may continue at the top of the next.
    apart = ends[:-1] != starts[1:]
    starts = np.concatenate([starts[:1], starts[1:][apart]])
    ends = np.concatenate([ends[:-1][apart], ends[-1:]])
    borders = np.stack([starts, ends], axis=1).reshape(-1)
    runs = np.diff(np.concatenate([[0], borders, [height * width]]))
    return runs if len(runs) == 1 or runs[-1] else runs[:-1]


def compress_runs(runs: np.ndarray) -> str:
    """Encode (R,) run lengths as the string that COCO uses."""
    numbers = runs.astype(np.int64)
    numbers[3:] -= runs[1:-2]
    digits = np.zeros((len(numbers), MAX_DIGITS), np.uint8)
    used = np.zeros((len(numbers), MAX_DIGITS), bool)
    open_numbers = np.ones(len(numbers), bool)
    for place in range(MAX_DIGITS):
        digit = numbers & 31
        numbers = numbers >> DIGIT_BITS
        # The top bit of the last digit is the sign: the rest must be all zeros or all ones.
        more = np.where(digit & 16, numbers != -1, numbers != 0)
        digits[:, place] = digit + np.where(more, 32, 0) + ord("0")
        used[:, place] = open_numbers
        open_numbers = open_numbers & more
    return digits[used].tobytes().decode("ascii")
