"""Pairs of frames made from single pictures, with the true motion between them.

The picture is the current frame. The keyframe is drawn from it as a camera would have seen it a
moment earlier: all of it moved by a projective map, some of its instances by one of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.config import check_settings, setting
from yolact_ros.datasets.coco import Sample

# Around an instance, how far the pixels reach that are half its own: they leave with it.
EDGE_PIXELS = 2
INPAINT_RADIUS = 3  # pixels of the hole's edge that OpenCV's inpainting looks at


@dataclass(frozen=True)
class MotionConfig:
    """How far camera and instances move from the keyframe to the frame; each drawn evenly."""

    shift: float = setting(0.06, "largest shift of the camera, in image sides", range=(0.0, 1.0))
    rotation: float = setting(6.0, "largest roll of the camera in degrees", range=(0.0, 90.0))
    zoom: float = setting(0.08, "the camera's scale is 1 minus to 1 plus this", range=(0.0, 0.9))
    tilt: float = setting(
        0.02, "largest shift of each corner of the picture, in image sides", range=(0.0, 0.4)
    )
    instance_probability: float = setting(
        0.3, "how often an instance moves by itself", range=(0.0, 1.0)
    )
    instance_shift: float = setting(
        0.06, "largest shift of such an instance, in image sides", range=(0.0, 1.0)
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class MovedStill:
    """The keyframe behind a picture.

    Attributes:
        keyframe: (H, W, 3) uint8 BGR.
        flow: (2, H, W) float32 x and y in pixels, from each pixel of the picture to where it is in
            the keyframe.
        known: (H, W) bool, where the keyframe shows that pixel.
    """

    keyframe: np.ndarray
    flow: np.ndarray
    known: np.ndarray


def move_still(sample: Sample, config: MotionConfig, *, random: np.random.Generator) -> MovedStill:
    """Draw a motion, and the keyframe that it came from.

    Args:
        sample: the current frame; it is not changed.
        config: how far things move.
        random: source of all randomness.
    """
    height, width = sample.image.shape[:2]
    camera = random_homography((height, width), config, random=random)
    maps, owners = [camera], np.zeros((height, width), np.uint8)
    for mask in sample.masks[~sample.crowd][:254]:
        if random.random() < config.instance_probability:
            x, y = random.uniform(-config.instance_shift, config.instance_shift, 2)
            maps.append(translation(x * width, y * height) @ camera)
            owners[mask > 0] = len(maps) - 1
    keyframe, keyframe_owners = _draw_keyframe(sample.image, owners, maps)
    targets = np.zeros((2, height, width), np.float32)
    for number, homography in enumerate(maps):
        place = owners == number
        targets[:, place] = move_points(homography, np.argwhere(place)[:, ::-1]).T
    columns, rows = np.rint(targets).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    seen = keyframe_owners[np.where(inside, rows, 0), np.where(inside, columns, 0)]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)))
    return MovedStill(keyframe, (targets - grid).astype(np.float32), inside & (seen == owners))


def random_homography(
    size: tuple[int, int], config: MotionConfig, *, random: np.random.Generator
) -> np.ndarray:
    """A (3, 3) float64 homography from pixels x y of the frame to those of the keyframe."""
    height, width = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    tilted = corners + random.uniform(-config.tilt, config.tilt, (4, 2)) * (width, height)
    tilt = cv2.getPerspectiveTransform(corners, tilted.astype(np.float32))
    angle = random.uniform(-config.rotation, config.rotation)
    scale = random.uniform(1 - config.zoom, 1 + config.zoom)
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    x, y = random.uniform(-config.shift, config.shift, 2)
    homography: np.ndarray = translation(x * width, y * height) @ turn @ tilt
    return homography


def translation(x: float, y: float) -> np.ndarray:
    """The (3, 3) homography of a shift."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def move_points(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 2) x y mapped by a (3, 3) homography, float64."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography.T
    moved: np.ndarray = homogeneous[:, :2] / homogeneous[:, 2:]
    return moved


def _draw_keyframe(
    image: np.ndarray, owners: np.ndarray, maps: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the background, then what moved by itself; beyond the picture it is mirrored.

    Args:
        image: (H, W, 3) uint8, the current frame.
        owners: (H, W) uint8, number of the map that each pixel follows; 0 is the background's.
        maps: (3, 3) homographies from the frame to the keyframe.

    Returns:
        The keyframe, and its own (H, W) uint8 owners.
    """
    size = (image.shape[1], image.shape[0])
    background = image
    if len(maps) > 1:
        kernel = np.ones((2 * EDGE_PIXELS + 1,) * 2, np.uint8)
        hole = cv2.dilate((owners > 0).astype(np.uint8), kernel)
        background = cv2.inpaint(image, hole, INPAINT_RADIUS, cv2.INPAINT_TELEA)
    keyframe = cv2.warpPerspective(
        background, maps[0], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    keyframe_owners = np.zeros_like(owners)
    for number, homography in enumerate(maps[1:], start=1):
        mask = (owners == number).astype(np.float32)
        cover = cv2.warpPerspective(mask, homography, size, flags=cv2.INTER_LINEAR)
        moved = cv2.warpPerspective(image, homography, size, flags=cv2.INTER_LINEAR)
        mixed = keyframe + cover[..., None] * (moved.astype(np.float32) - keyframe)
        keyframe = np.rint(mixed).astype(np.uint8)
        keyframe_owners[cover > 0.5] = number
    return keyframe, keyframe_owners
