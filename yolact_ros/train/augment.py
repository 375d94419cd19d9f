"""Augment training samples: colours, expanding, cropping, mirroring, flipping.

The steps and their strengths are the reference's (dbolya/yolact `utils/augmentations.py`); colours
are changed last, on the small image. Two of its quirks are omitted: its overlap test of crops,
which never rejects anything (so a crop mode is just "crop or not"), and its filter of small boxes,
which compares pixels with a fraction and so drops nothing.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.config import Checked, setting
from yolact_ros.datasets.coco import Sample
from yolact_ros.train.window import Window, cut_and_resize, inside, letterbox

CROP_TRIALS = 50  # per crop; then the image may also stay uncropped


@dataclass(frozen=True)
class AugmentConfig(Checked):
    """Configures the random changes and their strength; the defaults are the reference's.

    Attributes:
        brightness: Maximum shift of all channels, on a scale of 0 to 255 (0 = off).
        contrast: Maximum change of contrast, as a fraction (0 = off).
        saturation: Maximum change of saturation, as a fraction (0 = off).
        hue: Maximum hue rotation in degrees (0 = off).
        expand_probability: Probability of placing the image on a larger canvas.
        expand_ratio: Maximum sides of the canvas, relative to the image.
        crop_probability: Probability of cropping the image.
        crop_size: Minimum sides of a crop, relative to the image.
        mirror_probability: Probability of swapping left and right.
        flip_probability: Probability of swapping top and bottom, for cameras that look down.
        smallest_box: Instances with a side of at most this many network pixels are dropped.
    """

    brightness: float = setting(32.0, range=(0.0, 255.0))
    contrast: float = setting(0.5, range=(0.0, 0.99))
    saturation: float = setting(0.5, range=(0.0, 0.99))
    hue: float = setting(18.0, range=(0.0, 180.0))
    expand_probability: float = setting(0.5, range=(0.0, 1.0))
    expand_ratio: float = setting(4.0, range=(1.0, 10.0))
    crop_probability: float = setting(5 / 6, range=(0.0, 1.0))
    crop_size: float = setting(0.3, range=(0.05, 1.0))
    mirror_probability: float = setting(0.5, range=(0.0, 1.0))
    flip_probability: float = setting(0.0, range=(0.0, 1.0))
    smallest_box: float = setting(4.0, range=(0.0, 100.0))


def augment(
    sample: Sample,
    size: tuple[int, int],
    *,
    config: AugmentConfig,
    random: np.random.Generator,
    resize: str = "squash",
) -> Sample:
    """Draw a random variation of a sample at the network's input size.

    Args:
        sample: as read from a dataset; not changed.
        size: (height, width) of the result.
        config: strengths.
        random: source of all randomness, so equal generators give equal results.
        resize: `squash` or `letterbox`, see `ModelConfig`.

    Returns:
        A new sample; it may be empty if all instances were too small.
    """
    changes = draw_changes(sample, size, config=config, random=random, resize=resize)
    return apply_changes(sample, changes, size, config=config)


@dataclass(frozen=True)
class Changes:
    """Describes the random changes of a sample, to apply them to others as well.

    Attributes:
        window: the part that becomes the whole image.
        mirrored: whether left and right are swapped.
        flipped: whether top and bottom are swapped.
        colours: state of the random generator for the colours.
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
    """Apply drawn changes to the sample, or to another one of the same image size."""
    sample = cut_and_resize(sample, changes.window, size=size, smallest_box=config.smallest_box)
    if changes.mirrored:
        sample = flip(sample, 1)
    if changes.flipped:
        sample = flip(sample, 0)
    image = change_colours(sample.image, config, random=copy.deepcopy(changes.colours))
    return dataclasses.replace(sample, image=image)


def resize_sample(sample: Sample, size: tuple[int, int], *, resize: str = "squash") -> Sample:
    """Resize a sample to (height, width) `size` without any random change."""
    height, width = sample.image.shape[:2]
    window = Window(0, 0, width, height)
    if resize == "letterbox":
        window = letterbox(window, size)
    return cut_and_resize(sample, window, size=size, smallest_box=0.0)


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
    """Choose a part of the canvas that contains the centre of an instance that is not a crowd."""
    centres = ((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2)[~sample.crowd]
    if not len(centres):
        return canvas
    while random.random() < config.crop_probability:
        for _ in range(CROP_TRIALS):
            window = _random_part(canvas, config, random)
            if window is not None and inside(centres, window).any():
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


def flip(sample: Sample, axis: int) -> Sample:
    """Swap top and bottom (axis 0) or left and right (axis 1)."""
    low, high = (1, 3) if axis == 0 else (0, 2)
    boxes = sample.boxes.copy()
    boxes[:, [low, high]] = sample.image.shape[axis] - sample.boxes[:, [high, low]]
    # ascontiguousarray would keep the negative strides of zero masks, which torch rejects.
    image, masks = np.flip(sample.image, axis).copy(), np.flip(sample.masks, 1 + axis).copy()
    return dataclasses.replace(sample, image=image, boxes=boxes, masks=masks)


def change_colours(
    image: np.ndarray, config: AugmentConfig, *, random: np.random.Generator
) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, each with probability one half.

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
