"""Render pairs of frames from single images, with the true motion between them.

The picture is the current frame. The keyframe is rendered from it as a camera would have seen it a
moment earlier: the whole picture moves by a projective map, and some instances by their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.config import Checked, setting
from yolact_ros.datasets.coco import Sample

# Width of the border of an instance whose mixed pixels move with it.
EDGE_PIXELS = 2
INPAINT_RADIUS = 3  # pixels around a hole that OpenCV's inpainting uses


@dataclass(frozen=True)
class MotionConfig(Checked):
    """Configures the motion from keyframe to frame; each value is drawn uniformly.

    Attributes:
        shift: Maximum shift of the camera, relative to the image sides.
        rotation: Maximum roll of the camera in degrees.
        zoom: Maximum deviation of the camera's zoom from 1.
        tilt: Maximum shift of each corner, relative to the image sides.
        instance_probability: Probability that an instance moves independently.
        instance_shift: Maximum shift of such an instance, relative to the image sides.
    """

    shift: float = setting(0.06, range=(0.0, 1.0))
    rotation: float = setting(6.0, range=(0.0, 90.0))
    zoom: float = setting(0.08, range=(0.0, 0.9))
    tilt: float = setting(0.02, range=(0.0, 0.4))
    instance_probability: float = setting(0.3, range=(0.0, 1.0))
    instance_shift: float = setting(0.06, range=(0.0, 1.0))


@dataclass(frozen=True)
class MovedStill:
    """Holds the keyframe rendered from an image.

    Attributes:
        keyframe: (H, W, 3) uint8 BGR.
        flow: (2, H, W) float32 x and y in pixels, from each pixel of the picture to its position
            in the keyframe.
        known: (H, W) bool, whether the keyframe shows that pixel.
    """

    keyframe: np.ndarray
    flow: np.ndarray
    known: np.ndarray


def move_still(sample: Sample, config: MotionConfig, *, random: np.random.Generator) -> MovedStill:
    """Draw a random motion and render the keyframe before it.

    Args:
        sample: current frame; not changed.
        config: maximum motions.
        random: random generator.
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
    """Draw a (3, 3) float64 homography from pixels x y of the frame to those of the keyframe."""
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
    """Return the (3, 3) homography of a translation."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def move_points(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map (N, 2) x y by a (3, 3) homography, as float64."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography.T
    moved: np.ndarray = homogeneous[:, :2] / homogeneous[:, 2:]
    return moved


def _draw_keyframe(
    image: np.ndarray, owners: np.ndarray, maps: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Render the background, mirrored beyond the image, then the instances that moved.

    Args:
        image: (H, W, 3) uint8, the current frame.
        owners: (H, W) uint8, index of the map of each pixel; 0 is the background.
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
