"""Draw detections on their image, and paint label images.

Where masks overlap, the best detection wins.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections

JPEG_QUALITY = 85
OVERLAY_FORMAT = "bgr8; jpeg compressed bgr8"  # as image_transport names it
MASK_OPACITY = 0.45
FONT = cv2.FONT_HERSHEY_SIMPLEX
Tag = tuple[int, int, int, int]  # x1 y1 x2 y2 in pixels
GOLDEN_RATIO = 0.6180339887  # as a hue step, keeps neighbouring class ids far apart


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return the (blue, green, red) of a class, 0..255; equal class ids have equal colours."""
    hue = (0.02 + class_id * GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 if class_id % 2 else 0.9, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def draw_detections(
    image_bgr: np.ndarray, detections: Detections, class_names: Sequence[str]
) -> np.ndarray:
    """Draw masks with outlines, boxes, and labels with track id, class and class score.

    Args:
        image_bgr: (H, W, 3) uint8, the image of the detections.
        detections: what to draw; the best ones are drawn on top.
        class_names: names by class id.

    Returns:
        A new (H, W, 3) uint8 BGR image.

    Raises:
        ValueError: the image and the detections' image differ in size.
    """
    canvas = np.array(image_bgr, order="C")
    draw_on(canvas, detections, class_names)
    return canvas


def draw_on(canvas: np.ndarray, detections: Detections, class_names: Sequence[str]) -> None:
    """Draw as `draw_detections` on a C-contiguous image itself."""
    if canvas.shape[:2] != detections.image_size:
        raise ValueError(
            f"The image is {canvas.shape[:2]} (height, width), but the detections are of an "
            f"image of {detections.image_size}."
        )
    line = max(1, round(min(detections.image_size) / 400))
    worst_first = range(len(detections) - 1, -1, -1)
    for i in worst_first:
        _blend_mask(canvas, detections, i, line=line)
    for i in worst_first:
        _draw_box(canvas, detections, i, line=line)
    taken: list[Tag] = []  # the best ones choose their position first
    for i in range(len(detections)):
        colour = class_colour(int(detections.class_ids[i]))
        text = caption(detections, i, class_names=class_names)
        box = detections.boxes[i]
        taken.append(_draw_label(canvas, box, text, colour, line=line, taken=taken))


def encode_jpeg(image_bgr: np.ndarray) -> np.ndarray:
    """Encode a (H, W, 3) uint8 image as JPEG, (N,) uint8."""
    _, encoded = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return np.asarray(encoded).reshape(-1)


def caption(detections: Detections, index: int, *, class_names: Sequence[str]) -> str:
    """Return a label with track id (if any), class, and the score that thresholds apply to."""
    name = object_name(detections, index, class_names=class_names)
    return f"{name} {detections.scores[index]:.2f}"


def object_name(detections: Detections, index: int, *, class_names: Sequence[str]) -> str:
    """Return the label of a detection: its track id, if any, and its class."""
    name = class_names[detections.class_ids[index]]
    tracked = detections.track_ids is not None and detections.track_ids[index]
    return f"#{tracked} {name}" if tracked else name


def _blend_mask(canvas: np.ndarray, detections: Detections, index: int, *, line: int) -> None:
    x1, y1, x2, y2 = detections.mask_rois[index]
    mask = detections.masks[index].view(np.uint8)
    if not mask.size:
        return
    colour = class_colour(int(detections.class_ids[index]))
    region = canvas[y1:y2, x1:x2]
    solid = np.empty_like(region)
    cv2.rectangle(solid, (0, 0), (solid.shape[1], solid.shape[0]), colour, cv2.FILLED)
    cv2.copyTo(cv2.addWeighted(region, 1 - MASK_OPACITY, solid, MASK_OPACITY, 0), mask, region)
    # Ten times faster than drawing contours: the pixels that erosion removes form the outline.
    side = 2 * line + 1
    core = cv2.erode(
        mask, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(0,)
    )
    cv2.copyTo(solid, cv2.subtract(mask, core), region)


def _draw_box(canvas: np.ndarray, detections: Detections, index: int, *, line: int) -> None:
    x1, y1, x2, y2 = _pixels(detections.boxes[index])
    colour = class_colour(int(detections.class_ids[index]))
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line)


def _draw_label(
    canvas: np.ndarray,
    box: np.ndarray,
    text: str,
    colour: tuple[int, int, int],
    *,
    line: int,
    taken: Sequence[Tag],
) -> Tag:
    """Draw a filled tag above the box, or below its upper or lower edge if that is free."""
    height, width = canvas.shape[:2]
    scale = 0.45 * max(1.0, line * 0.85)
    (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, 1)
    tag_width, tag_height = text_width + 8, text_height + below + 4
    x1, y1, _, y2 = _pixels(box)
    left = max(0, min(x1, width - tag_width))
    tops = [y1 - tag_height, y1, y2, *range(y1 + tag_height, y2, tag_height)]
    tags = [(left, top, left + tag_width, top + tag_height) for top in tops]
    visible = [tag for tag in tags if tag[1] >= 0 and tag[3] <= height] or tags[1:2]
    tag = next((tag for tag in visible if not any(_meet(tag, t) for t in taken)), visible[0])
    cv2.rectangle(canvas, tag[:2], tag[2:], colour, cv2.FILLED)
    blue, green, red = colour
    ink = (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else (255, 255, 255)
    origin = (left + 4, tag[1] + 2 + text_height)
    cv2.putText(canvas, text, origin, FONT, scale, ink, 1, cv2.LINE_AA)
    return tag


def _meet(first: Tag, second: Tag) -> bool:
    """Return whether two tags overlap."""
    return all(first[i] < second[i + 2] and second[i] < first[i + 2] for i in (0, 1))


def _pixels(box: np.ndarray) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    return x1, y1, x2, y2


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
