"""Cut a window out of a training sample and resize it to the network's input size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.config import LETTERBOX_FILL_BGR
from yolact_ros.datasets.coco import Sample, tight_box
from yolact_ros.datasets.masks import MaskCrops

MAX_WARP_SIDE = 32000  # pixels


@dataclass(frozen=True)
class Window:
    """Describes a half-open rectangle in pixels of an image, which may extend beyond the image."""

    left: int
    top: int
    right: int
    bottom: int


def letterbox(window: Window, size: tuple[int, int]) -> Window:
    """Return the smallest window centred on `window` with the aspect ratio of `size`."""
    width, height = window.right - window.left, window.bottom - window.top
    scale = max(width / size[1], height / size[0])
    wide, tall = max(width, round(size[1] * scale)), max(height, round(size[0] * scale))
    left, top = window.left - (wide - width) // 2, window.top - (tall - height) // 2
    return Window(left, top, left + wide, top + tall)


def inside(points: np.ndarray, window: Window) -> np.ndarray:
    """Return which of (N, 2) x y `points` are strictly inside."""
    low, high = (window.left, window.top), (window.right, window.bottom)
    return np.all((points > low) & (points < high), axis=1)


def cut_and_resize(
    sample: Sample, window: Window, *, size: tuple[int, int], smallest_box: float
) -> Sample:
    """Cut a window out of a sample and resize it to `size`.

    An instance is kept if its box's centre is strictly inside the window, part of its mask remains
    and its box is larger than `smallest_box` pixels of the result. If the window cuts an instance,
    its new box fits tightly around the rest of its mask.

    Args:
        sample: not changed.
        window: in pixels of the sample; beyond the image the result has ImageNet's mean colour.
        size: (height, width) of the result.
        smallest_box: in pixels of the result.
    """
    scale_x = size[1] / (window.right - window.left)
    scale_y = size[0] / (window.bottom - window.top)
    scale = np.asarray([scale_x, scale_y, scale_x, scale_y], np.float32)
    image = resample(sample.image, (0, 0), window, size, LETTERBOX_FILL_BGR)
    corner = np.asarray([window.left, window.top] * 2, np.float32)
    limit = np.asarray([window.right - window.left, window.bottom - window.top] * 2, np.float32)
    kept: list[int] = []
    boxes: list[np.ndarray] = []
    chosen = np.flatnonzero(inside((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2, window))
    masks = np.zeros((len(chosen), *size), np.uint8)
    for i in chosen:
        (left, top), crop = _crop_of(sample.masks, int(i))
        mask = masks[len(kept)]
        mask[...] = resample(crop, (left, top), window, size, (0,))
        box = sample.boxes[i] - corner
        if (box < 0).any() or (box > limit).any():
            box = _visible_box((left, top), crop, window)
        box = box * scale
        if min(box[2] - box[0], box[3] - box[1]) <= smallest_box or not mask.any():
            continue
        kept.append(int(i))
        boxes.append(box)
    return dataclasses.replace(
        sample,
        image=image,
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        masks=masks[: len(kept)],
        class_ids=sample.class_ids[kept],
        crowd=sample.crowd[kept],
        box_only=None if sample.box_only is None else sample.box_only[kept],
        track_ids=sample.track_ids[kept] if len(sample.track_ids) else sample.track_ids,
    )


def _crop_of(masks: np.ndarray | MaskCrops, index: int) -> tuple[tuple[int, int], np.ndarray]:
    """Return x y of the first pixel, and (h, w) uint8, of one mask."""
    if isinstance(masks, MaskCrops):
        x, y = masks.corners[index]
        return (int(x), int(y)), masks.crops[index]
    return (0, 0), masks[index]


def _visible_box(corner: tuple[int, int], crop: np.ndarray, window: Window) -> np.ndarray:
    """Return the box of the visible part of a mask: (4,) float32 x1 y1 x2 y2 in the window."""
    left, top = max(window.left - corner[0], 0), max(window.top - corner[1], 0)
    right, bottom = window.right - corner[0], window.bottom - corner[1]
    x1, y1, x2, y2 = tight_box(crop[top : max(bottom, 0), left : max(right, 0)])
    if x2 <= x1:
        return np.zeros(4, np.float32)
    x, y = corner[0] + left - window.left, corner[1] + top - window.top
    return np.asarray([x1 + x, y1 + y, x2 + x, y2 + y], np.float32)


def resample(
    part: np.ndarray,
    corner: tuple[int, int],
    window: Window,
    size: tuple[int, int],
    fill: tuple[int, ...],
) -> np.ndarray:
    """Resample a window of an image, or of a part of one, to another size, bilinearly.

    Neither the window nor the whole image is ever created at full size: both can be far larger
    than the part.

    Args:
        part: (h, w, ...) uint8.
        corner: x y of the part's first pixel in the image.
        window: in pixels of the image.
        size: (height, width) of the result.
        fill: value of every channel where the window is outside the part.

    Returns:
        (height, width, ...) uint8; a 0/1 mask is rounded at one half.
    """
    # The visible part, and one pixel around it for the interpolation.
    left, top = max(window.left - corner[0] - 1, 0), max(window.top - corner[1] - 1, 0)
    right = min(window.right - corner[0] + 1, part.shape[1])
    bottom = min(window.bottom - corner[1] + 1, part.shape[0])
    if right <= left or bottom <= top:
        return np.full((*size, *part.shape[2:]), fill if part.ndim == 3 else fill[0], np.uint8)
    x, y = corner[0] + left - window.left, corner[1] + top - window.top
    part = part[top:bottom, left:right]
    wide, tall = window.right - window.left, window.bottom - window.top
    if x <= 0 and y <= 0 and x + part.shape[1] >= wide and y + part.shape[0] >= tall:
        part = part[-y : tall - y, -x : wide - x]
        if part.shape[:2] == tuple(size):
            return np.ascontiguousarray(part)
        return cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    # Where the part ends with the window, its border pixels are repeated, as in `cv2.resize`.
    edges = (y == 0, y + part.shape[0] == tall, x == 0, x + part.shape[1] == wide)
    widths = int(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])
    part = cv2.copyMakeBorder(
        part, widths[0], widths[1], widths[2], widths[3], cv2.BORDER_REPLICATE
    )
    x, y = x - int(edges[2]), y - int(edges[0])
    step_x, step_y = wide / size[1], tall / size[0]
    shrink = -(-max(part.shape[:2]) // MAX_WARP_SIDE)
    if shrink > 1:  # OpenCV's warp uses 16-bit coordinates
        small = -(-part.shape[1] // shrink), -(-part.shape[0] // shrink)
        scale_x, scale_y = part.shape[1] / small[0], part.shape[0] / small[1]
        part = cv2.resize(part, small, interpolation=cv2.INTER_LINEAR)
        x, y, step_x, step_y = x / scale_x, y / scale_y, step_x / scale_x, step_y / scale_y
    # Centre of result pixel u to pixel of the part: (u + 0.5) * step - 0.5 - x.
    matrix = np.array([[step_x, 0, step_x / 2 - 0.5 - x], [0, step_y, step_y / 2 - 0.5 - y]])
    return cv2.warpAffine(
        part,
        matrix,
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill if part.ndim == 3 else fill[0],
    )
