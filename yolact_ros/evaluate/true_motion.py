"""True motion between two frames of a clip, for clips whose makers know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# How far the depth of a point may be off, as a share of it: millimetres and slanted surfaces.
DEPTH_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Motion:
    """Where each pixel of a frame lay in an earlier one.

    Attributes:
        flow: (H, W, 2) float32 x and y in pixels: what the frame shows at (x, y), the earlier one
            shows at `(x, y) + flow[y, x]`.
        visible: (H, W) bool, whether the earlier frame shows it: inside the picture, not hidden.
    """

    flow: np.ndarray
    visible: np.ndarray

    def carry(self, mask: np.ndarray) -> np.ndarray:
        """Move a mask (H, W) bool of the earlier frame into this one, where it is visible."""
        height, width = mask.shape
        x = self.flow[..., 0] + np.arange(width, dtype=np.float32)
        y = self.flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        moved = cv2.remap(mask.astype(np.uint8) * 255, x, y, cv2.INTER_LINEAR)
        carried: np.ndarray = (moved > 127) & self.visible
        return carried


def motion_from_depth(
    depth: np.ndarray,
    camera: Mapping[str, Any],
    *,
    earlier_depth: np.ndarray,
    earlier_camera: Mapping[str, Any],
) -> Motion:
    """Motion of a scene in which only the camera moves.

    Each pixel's point in the world is seen again with the earlier camera; it is hidden there if
    the earlier depth image has another distance at that place.

    Args:
        depth: (H, W) float32 metres along the optical axis.
        camera: `fx`, `fy`, `cx`, `cy` in pixels from the upper left corner of the picture, and
            `camera_to_world` (4, 4), optical frame (z forward, x right, y down) to world, metres.
        earlier_depth: (H, W), of the earlier frame.
        earlier_camera: of the earlier frame.
    """
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width] + 0.5  # centres of pixels
    points = np.stack(
        [
            (columns - camera["cx"]) / camera["fx"] * depth,
            (rows - camera["cy"]) / camera["fy"] * depth,
            depth,
            np.ones_like(rows),
        ],
        axis=-1,
    )
    change = np.linalg.inv(earlier_camera["camera_to_world"]) @ camera["camera_to_world"]
    seen = points @ change.T
    distance = seen[..., 2]
    in_front = distance > 0
    safe = np.where(in_front, distance, 1.0)
    x = earlier_camera["fx"] * seen[..., 0] / safe + earlier_camera["cx"]
    y = earlier_camera["fy"] * seen[..., 1] / safe + earlier_camera["cy"]
    inside = in_front & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    there = earlier_depth[np.where(inside, y, 0).astype(int), np.where(inside, x, 0).astype(int)]
    visible = inside & (np.abs(there - distance) <= DEPTH_TOLERANCE * safe)
    flow = np.stack([x - columns, y - rows], axis=-1).astype(np.float32)
    return Motion(flow, visible)


def motion_from_homographies(
    size: tuple[int, int], homography: np.ndarray, *, earlier: np.ndarray
) -> Motion:
    """Motion of a camera over a flat picture.

    Args:
        size: (height, width) of the frames.
        homography: (3, 3), from the frame's pixels x y to the picture's.
        earlier: the same of the earlier frame.
    """
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    change = np.linalg.inv(earlier) @ homography
    seen = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ change.T
    x, y = seen[..., 0] / seen[..., 2], seen[..., 1] / seen[..., 2]
    visible = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    flow = np.stack([x - columns, y - rows], axis=-1).astype(np.float32)
    return Motion(flow, visible)
