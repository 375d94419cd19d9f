"""Create COCO annotations of simulated views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from yolact_ros.classes import TABLETOP

# Objects that are less visible are not annotated, because nobody could recognise them.
MIN_AREA_SHARE = 64 / (640 * 480)  # fraction of the picture
MIN_VISIBLE_SHARE = 0.1  # fraction of the object's silhouette


def annotate(
    bodies: np.ndarray,
    objects: Mapping[int, int],
    *,
    silhouettes: Mapping[int, int],
    track_ids: Mapping[int, int],
) -> list[dict[str, Any]]:
    """Annotate every object that is sufficiently visible.

    Args:
        bodies: (H, W) int32, body at each pixel.
        objects: class id by body.
        silhouettes: number of pixels that each body would fill without occlusion, by body.
        track_ids: track id by body, constant over a clip.

    Returns:
        COCO annotations without `id` and `image_id`; the segmentation is compressed RLE.
    """
    annotations = []
    for body, class_id in objects.items():
        mask = bodies == body
        area = int(mask.sum())
        if area < MIN_AREA_SHARE * mask.size or area < MIN_VISIBLE_SHARE * silhouettes[body]:
            continue
        encoded = rle.encode(np.asfortranarray(mask, np.uint8))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "category_id": class_id + 1,
                "segmentation": {
                    "size": [int(side) for side in encoded["size"]],
                    "counts": encoded["counts"].decode("ascii"),
                },
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                "area": area,
                "iscrowd": 0,
                "track_id": track_ids[body],
            }
        )
    return annotations


def coco_document(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Assemble the content of a COCO file.

    Args:
        images: COCO image entries.
        annotations: results of `annotate` for each image.
    """
    numbered: list[dict[str, Any]] = []
    for image, found in zip(images, annotations, strict=True):
        for annotation in found:
            numbered.append({"id": len(numbered) + 1, "image_id": image["id"], **annotation})
    return {
        "info": {"description": "Simulated table tops with true instance masks"},
        "images": list(images),
        "annotations": numbered,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(TABLETOP)],
    }
