"""Random changes of a training sample: colours, zooming out, cropping, mirroring, flipping.

The steps and their strengths are the reference's (dbolya/yolact `utils/augmentations.py`); colours
are changed last, on the small image. Two of its quirks are left out: its overlap test of crops,
which never rejects anything (so a crop mode is only "crop or not"), and its filter of small boxes,
which compares pixels with a fraction and so drops nothing.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.config import LETTERBOX_FILL_BGR, check_settings, setting
from yolact_ros.datasets.coco import Sample, tight_box
from yolact_ros.datasets.masks import MaskCrops

CROP_TRIALS = 50  # of one crop; then the image may also stay whole
MAX_WARP_SIDE = 32000  # pixels


@dataclass(frozen=True)
class AugmentConfig:
    """Which changes are made, and how strong they are; the defaults are the reference's."""

    brightness: float = setting(
        32.0, "largest shift of all channels, of 255; 0 is off", range=(0.0, 255.0)
    )
    contrast: float = setting(
        0.5, "contrast is scaled by 1 minus to 1 plus this; 0 is off", range=(0.0, 0.99)
    )
    saturation: float = setting(
        0.5, "saturation is scaled by 1 minus to 1 plus this; 0 is off", range=(0.0, 0.99)
    )
    hue: float = setting(18.0, "largest turn of the hue in degrees; 0 is off", range=(0.0, 180.0))
    expand_probability: float = setting(
        0.5, "how often an image is put onto a larger canvas", range=(0.0, 1.0)
    )
    expand_ratio: float = setting(4.0, "largest canvas, in image sides", range=(1.0, 10.0))
    crop_probability: float = setting(5 / 6, "how often an image is cropped", range=(0.0, 1.0))
    crop_size: float = setting(0.3, "smallest crop, in image sides", range=(0.05, 1.0))
    mirror_probability: float = setting(
        0.5, "how often left and right are swapped", range=(0.0, 1.0)
    )
    flip_probability: float = setting(
        0.0, "how often top and bottom are swapped; for cameras that look down", range=(0.0, 1.0)
    )
    smallest_box: float = setting(
        4.0,
        "instances with a side of this many network pixels or fewer are dropped",
        range=(0.0, 100.0),
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Window:
    """A rectangle in pixels of an image, half-open; it may reach beyond the image."""

    left: int
    top: int
    right: int
    bottom: int


def augment(
    sample: Sample,
    size: tuple[int, int],
    *,
    config: AugmentConfig,
    random: np.random.Generator,
    resize: str = "squash",
) -> Sample:
    """Make one random variation of a sample at the network's input size.

    Args:
        sample: as read from a dataset; it is not changed.
        size: (height, width) of the result.
        config: strengths.
        random: source of all randomness, so equal generators give equal results.
        resize: `squash` or `letterbox`, see `ModelConfig`.

    Returns:
        A new sample; it may be empty where all instances were too small.
    """
    changes = draw_changes(sample, size, config=config, random=random, resize=resize)
    return apply_changes(sample, changes, size, config=config)


@dataclass(frozen=True)
class Changes:
    """What is to be done to a sample, and to all that are to stay like it.

    Attributes:
        window: what becomes the whole image.
        mirrored: whether left and right are swapped.
        flipped: whether top and bottom are.
        colours: state of the random generator that the colours are drawn with.
    """

    window: Window
    mirrored: bool
    flipped: bool
    colours: np.random.Generator


def draw_changes(
    sample: Sample,
    size: tuple[int, int],
    *,
    config: AugmentConfig,
    random: np.random.Generator,
    resize: str = "squash",
) -> Changes:
    """Draw a variation of a sample; see `augment`."""
    height, width = sample.image.shape[:2]
    window = Window(0, 0, width, height)
    if random.random() < config.expand_probability:
        window = _random_canvas(window, config, random)
    window = _random_crop(window, sample, config, random)
    if resize == "letterbox":
        window = letterbox(window, size)
    mirrored = random.random() < config.mirror_probability
    flipped = bool(config.flip_probability) and random.random() < config.flip_probability
    return Changes(window, mirrored, flipped, copy.deepcopy(random))


def apply_changes(
    sample: Sample, changes: Changes, size: tuple[int, int], *, config: AugmentConfig
) -> Sample:
    """Change a sample as it was drawn for it, or for another one of the same image size."""
    sample = cut_and_resize(sample, changes.window, size=size, smallest_box=config.smallest_box)
    if changes.mirrored:
        sample = mirror(sample)
    if changes.flipped:
        sample = flip(sample)
    image = change_colours(sample.image, config, random=copy.deepcopy(changes.colours))
    return dataclasses.replace(sample, image=image)


def resize_sample(sample: Sample, size: tuple[int, int], *, resize: str = "squash") -> Sample:
    """Bring a sample to (height, width) `size` without any random change."""
    height, width = sample.image.shape[:2]
    window = Window(0, 0, width, height)
    if resize == "letterbox":
        window = letterbox(window, size)
    return cut_and_resize(sample, window, size=size, smallest_box=0.0)


def letterbox(window: Window, size: tuple[int, int]) -> Window:
    """The smallest window around the middle of `window` that has the aspect ratio of `size`."""
    width, height = window.right - window.left, window.bottom - window.top
    scale = max(width / size[1], height / size[0])
    wide, tall = max(width, round(size[1] * scale)), max(height, round(size[0] * scale))
    left, top = window.left - (wide - width) // 2, window.top - (tall - height) // 2
    return Window(left, top, left + wide, top + tall)


def _random_canvas(whole: Window, config: AugmentConfig, random: np.random.Generator) -> Window:
    """Place the image somewhere on a canvas up to `expand_ratio` times its sides."""
    ratio = random.uniform(1, config.expand_ratio)
    width, height = int(whole.right * ratio), int(whole.bottom * ratio)
    left = -int(random.uniform(0, max(width - whole.right, 1)))
    top = -int(random.uniform(0, max(height - whole.bottom, 1)))
    return Window(left, top, left + width, top + height)


def _random_crop(
    canvas: Window, sample: Sample, config: AugmentConfig, random: np.random.Generator
) -> Window:
    """Choose a part of the canvas that holds the centre of an instance that is no crowd."""
    centres = ((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2)[~sample.crowd]
    if not len(centres):
        return canvas
    while random.random() < config.crop_probability:
        for _ in range(CROP_TRIALS):
            window = _random_part(canvas, config, random)
            if window is not None and _inside(centres, window).any():
                return window
    return canvas


def _random_part(
    canvas: Window, config: AugmentConfig, random: np.random.Generator
) -> Window | None:
    width, height = canvas.right - canvas.left, canvas.bottom - canvas.top
    part_width = random.uniform(config.crop_size * width, width)
    part_height = random.uniform(config.crop_size * height, height)
    if not 0.5 <= part_height / part_width <= 2:
        return None
    left = canvas.left + random.uniform(0, width - part_width)
    top = canvas.top + random.uniform(0, height - part_height)
    window = Window(int(left), int(top), int(left + part_width), int(top + part_height))
    return window if window.right > window.left and window.bottom > window.top else None


def _inside(points: np.ndarray, window: Window) -> np.ndarray:
    """Which of (N, 2) x y `points` lie strictly inside."""
    low, high = (window.left, window.top), (window.right, window.bottom)
    return np.all((points > low) & (points < high), axis=1)


def cut_and_resize(
    sample: Sample, window: Window, *, size: tuple[int, int], smallest_box: float
) -> Sample:
    """Cut a window out of a sample and squash it to `size`.

    An instance stays when its box's centre lies strictly inside the window, something of its mask
    is left and its box is larger than `smallest_box` pixels of the result. Where the window cuts
    an instance, its new box is made tight around what is left of its mask.

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
    inside = np.flatnonzero(_inside((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2, window))
    masks = np.zeros((len(inside), *size), np.uint8)
    for i in inside:
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
    """Give x y of the first pixel, and (h, w) uint8, of one mask."""
    if isinstance(masks, MaskCrops):
        x, y = masks.corners[index]
        return (int(x), int(y)), masks.crops[index]
    return (0, 0), masks[index]


def _visible_box(corner: tuple[int, int], crop: np.ndarray, window: Window) -> np.ndarray:
    """(4,) float32 x1 y1 x2 y2, in pixels of the window, around what it shows of a mask."""
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
    """Show a window of an image, or of a part of one, at another size, by bilinear sampling.

    Neither the window nor the whole image is ever made at full size: both can be far larger than
    the part.

    Args:
        part: (h, w, ...) uint8.
        corner: x y of the part's first pixel in the image.
        window: in pixels of the image.
        size: (height, width) of the result.
        fill: value of every channel where the window shows nothing of the part.

    Returns:
        (height, width, ...) uint8; a 0/1 mask is rounded at one half.
    """
    # What the window shows of the part, and one pixel around it for the interpolation.
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
    # Where the part ends with the window, its border pixels go on, as in `cv2.resize`.
    edges = (y == 0, y + part.shape[0] == tall, x == 0, x + part.shape[1] == wide)
    widths = int(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])
    part = cv2.copyMakeBorder(
        part, widths[0], widths[1], widths[2], widths[3], cv2.BORDER_REPLICATE
    )
    x, y = x - int(edges[2]), y - int(edges[0])
    step_x, step_y = wide / size[1], tall / size[0]
    shrink = -(-max(part.shape[:2]) // MAX_WARP_SIDE)
    if shrink > 1:  # OpenCV's warp counts pixels in 16 bits
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


def mirror(sample: Sample) -> Sample:
    """Swap left and right."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    return dataclasses.replace(
        sample,
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        boxes=boxes,
        masks=np.ascontiguousarray(sample.masks[:, :, ::-1]),
    )


def flip(sample: Sample) -> Sample:
    """Swap top and bottom."""
    height = sample.image.shape[0]
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = height - sample.boxes[:, [3, 1]]
    return dataclasses.replace(
        sample,
        image=np.ascontiguousarray(sample.image[::-1]),
        boxes=boxes,
        masks=np.ascontiguousarray(sample.masks[:, ::-1]),
    )


def change_colours(
    image: np.ndarray, config: AugmentConfig, *, random: np.random.Generator
) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, each with a chance of one half.

    Args:
        image: (H, W, 3) uint8 BGR; it is not changed.
        config: strengths.
        random: source of randomness.

    Returns:
        (H, W, 3) uint8 BGR. Contrast is scaled about zero, as in the reference; unlike there,
        values are clipped to 0..255 once at the end.
    """
    changed = image.astype(np.float32)
    if _coin(random) and config.brightness > 0:
        changed += np.float32(random.uniform(-config.brightness, config.brightness))
    contrast_first = _coin(random)
    if contrast_first:
        changed = _scale_contrast(changed, config, random)
    changed = _change_hue_and_saturation(changed, config, random)
    if not contrast_first:
        changed = _scale_contrast(changed, config, random)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def _coin(random: np.random.Generator) -> bool:
    return bool(random.random() < 0.5)


def _scale_contrast(
    image: np.ndarray, config: AugmentConfig, random: np.random.Generator
) -> np.ndarray:
    if _coin(random) and config.contrast > 0:
        image *= np.float32(random.uniform(1 - config.contrast, 1 + config.contrast))
    return image


def _change_hue_and_saturation(
    image: np.ndarray, config: AugmentConfig, random: np.random.Generator
) -> np.ndarray:
    scale = random.uniform(1 - config.saturation, 1 + config.saturation) if _coin(random) else 1.0
    turn = random.uniform(-config.hue, config.hue) if _coin(random) else 0.0
    if scale == 1.0 and turn == 0.0:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)  # hue 0..360, saturation 0..1, value 0..255
    hsv[..., 0] = (hsv[..., 0] + np.float32(turn)) % 360
    hsv[..., 1] = hsv[..., 1] * np.float32(scale)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
