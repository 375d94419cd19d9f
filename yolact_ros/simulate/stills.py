"""Clips made from annotated photographs: a camera that moves over each of them.

Nothing in the picture moves by itself, so masks and motion are known exactly: each frame is the
photograph under a homography.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.errors import DatasetError

HOMOGRAPHIES = "homographies.json"
JPEG_QUALITY = 95
SMALLEST_AREA = 64 / (640 * 480)  # of the frame; of less nobody could tell what it is
SMALLEST_SHARE = 0.1  # of the object in the photograph

# The window that the camera sees, as a share of the photograph, and how far it turns.
VIEW = (0.65, 0.85)
TURN_DEGREES = 6.0
# Periods of the motion in frames; with 30 frames a second that is two seconds and more.
PERIODS = (60.0, 150.0)


@dataclass(frozen=True)
class Photograph:
    """An annotated photograph.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        masks: (N, H, W) uint8, 0 or 1.
        class_ids: (N,) int64.
    """

    image: np.ndarray
    masks: np.ndarray
    class_ids: np.ndarray


def write_stills(
    folder: Path,
    photographs: Iterable[Photograph],
    *,
    classes: Sequence[str],
    frames: int,
    seed: int = 0,
) -> None:
    """Write `images/`, `instances.json` (each photograph one video) and `homographies.json`.

    Args:
        folder: made if absent; must be empty.
        photographs: one clip each.
        classes: names by class id.
        frames: of each clip.
        seed: the same seed gives the same clips.

    Raises:
        DatasetError: the folder is not empty or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DatasetError(f"{folder} is not empty; choose a new folder, or remove it first.")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    homographies: dict[str, list[list[float]]] = {}
    for video, photograph in enumerate(photographs, start=1):
        size = photograph.image.shape[:2]
        path = camera_path(size, frames, random=np.random.default_rng([seed, video]))
        for number, homography in enumerate(path):
            name = f"{video:04d}_{number:04d}.jpg"
            image, masks = draw_frame(photograph, homography)
            if not cv2.imwrite(
                str(folder / "images" / name), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            ):
                raise DatasetError(f"{folder / 'images' / name} cannot be written.")
            homographies[name] = homography.tolist()
            images.append(
                {
                    "id": len(images) + 1, "file_name": name, "height": size[0],
                    "width": size[1], "video_id": video, "frame": number,
                }
            )  # fmt: skip
            annotations += _annotate(
                masks, photograph, image_id=len(images), first=len(annotations)
            )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
    }
    (folder / "instances.json").write_text(json.dumps(document))
    (folder / HOMOGRAPHIES).write_text(json.dumps(homographies))


def camera_path(
    size: tuple[int, int], frames: int, *, random: np.random.Generator
) -> list[np.ndarray]:
    """A smooth motion that never leaves the photograph.

    Args:
        size: (height, width) of photograph and frames.
        frames: how many.
        random: source of all randomness.

    Returns:
        For each frame the (3, 3) float64 homography from its pixels x y to the photograph's.
    """
    height, width = size
    times = np.arange(frames)

    def swing() -> np.ndarray:
        """Between -1 and 1, smooth."""
        period, phase = random.uniform(*PERIODS), random.uniform(0, 2 * np.pi)
        return np.sin(2 * np.pi * times / period + phase)

    views = VIEW[0] + (VIEW[1] - VIEW[0]) * (swing() + 1) / 2
    angles = np.deg2rad(TURN_DEGREES) * swing()
    across, down = swing(), swing()
    path = []
    for view, angle, x, y in zip(views, angles, across, down, strict=True):
        cosine, sine = np.cos(angle), np.sin(angle)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        corners = np.array([[-width, -height], [width, -height]]) / 2 @ turn.T
        view = min(view, float((np.array([width, height]) / 2 / np.abs(corners).max(0)).min()))
        room = np.array([width, height]) / 2 - view * np.abs(corners).max(0)
        middle = np.array([width - 1, height - 1]) / 2
        homography = np.eye(3)
        homography[:2, :2] = view * turn
        homography[:2, 2] = middle + room * (x, y) - view * turn @ middle
        path.append(homography)
    return path


def draw_frame(photograph: Photograph, homography: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the camera sees.

    Args:
        photograph: of (H, W) pixels.
        homography: (3, 3), from the frame's pixels to the photograph's.

    Returns:
        (H, W, 3) uint8 BGR, and (N, H, W) uint8 masks.
    """
    size = (photograph.image.shape[1], photograph.image.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpPerspective(
        photograph.image, homography, size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    masks = np.zeros_like(photograph.masks)
    for mask, before in zip(masks, photograph.masks, strict=True):
        mask[:] = cv2.warpPerspective(before * 255, homography, size, flags=flags) > 127
    return image, masks


def _annotate(
    masks: np.ndarray, photograph: Photograph, *, image_id: int, first: int
) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for track, (mask, before, class_id) in enumerate(
        zip(masks, photograph.masks, photograph.class_ids, strict=True), start=1
    ):
        area = int(mask.sum())
        if area < max(SMALLEST_AREA * mask.size, SMALLEST_SHARE * int(before.sum()), 1):
            continue
        rle = rle_masks.encode(np.asfortranarray(mask))
        annotations.append(
            {
                "id": first + len(annotations) + 1,
                "image_id": image_id,
                "category_id": int(class_id) + 1,
                "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode()},
                "bbox": rle_masks.toBbox(rle).tolist(),
                "area": area,
                "iscrowd": 0,
                "track_id": track,
            }
        )
    return annotations
