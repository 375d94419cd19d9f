"""Locate objects in 3-D by their masks on the depth image of the colour image.

All coordinates are in metres in the camera's optical frame: z forward, x right, y down (REP 103).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections

ERODED = 0.03  # fraction of the square root of a mask's area; borders also show the background
OUTLIER = 3.0  # standard deviations from the median depth, estimated by the median deviation
LEAST_SPREAD_M = 0.01  # minimum of that standard deviation, for flat objects seen frontally
BOX_PERCENTILES = (0.5, 99.5)  # of the points of an object along each axis
LEAST_POINTS = 10
STEEPEST = 573.0  # x / z or y / z; the tangent of 89.9 degrees
SAMPLES = 2500  # pixels of a mask used for statistics


@dataclass(frozen=True, eq=False)
class DepthView:
    """Holds the depth of one image.

    Attributes:
        metres: (H, W) float32 along the optical axis; NaN where the depth or the ray is unknown.
        rays: (H, W, 2) float32, see `runtime.pinhole.pixel_rays`.
    """

    metres: np.ndarray
    rays: np.ndarray


@dataclass(frozen=True, eq=False)
class ObjectPose3D:
    """Locates the visible side of one object, in metres in the optical frame.

    Attributes:
        centroid: (3,) float64 x y z, mean of its points.
        low, high: (3,) float64 corners of the box around them, with sides along the axes.
        inside: (h, w) bool, pixels of its mask that show the object and not its background.
        origin: (x, y) of the top left pixel of `inside` in the image.
    """

    centroid: np.ndarray
    low: np.ndarray
    high: np.ndarray
    inside: np.ndarray
    origin: tuple[int, int]


def view_of(metres: np.ndarray, rays: np.ndarray) -> DepthView:
    """Create a view whose points are all finite or unknown.

    Args:
        metres: (H, W) float32; becomes NaN, in place, where the ray is not finite or more than
            89.9 degrees off the optical axis, as where a distortion model does not hold.
        rays: (H, W, 2) float32.
    """
    steep = ~(np.abs(rays) < STEEPEST)
    if steep.any():
        metres[steep.any(axis=2)] = np.nan
    return DepthView(metres, rays)


def place_objects(detections: Detections, view: DepthView) -> list[ObjectPose3D | None]:
    """Locate every object in 3-D; None for one with too little depth in its mask.

    Raises:
        ValueError: the depth image and the detections' image differ in size.
    """
    if view.metres.shape != detections.image_size or view.rays.shape[:2] != detections.image_size:
        raise ValueError(
            f"Depth {view.metres.shape} and rays {view.rays.shape[:2]} (height, width) do not "
            f"fit the image {detections.image_size}."
        )
    return [
        place_object(mask, roi[:2], view)
        for mask, roi in zip(detections.masks, detections.mask_rois, strict=True)
    ]


def place_object(mask: np.ndarray, origin: np.ndarray, view: DepthView) -> ObjectPose3D | None:
    """Locate one object in 3-D.

    The median and the spread of the depth (by the median absolute deviation) come from the mask
    without a narrow border, whose pixels may show the background. The points of the whole mask
    whose depth is within `OUTLIER` spreads of the median form the object. For a large mask, every
    second or third row and column suffices.

    Args:
        mask: (h, w) bool.
        origin: (2,) x y of its top left pixel in the image.
        view: depth of the whole image.
    """
    x, y = int(origin[0]), int(origin[1])
    region = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
    depths, rays = view.metres[region], view.rays[region]
    step = max(1, round(np.sqrt(np.count_nonzero(mask) / SAMPLES)))
    sparse = slice(step // 2, None, step), slice(step // 2, None, step)
    sure = depths[sparse][_core(mask)[sparse]]
    sure = sure[np.isfinite(sure)]
    if len(sure) < LEAST_POINTS:
        return None
    middle = np.median(sure)
    spread = max(1.4826 * float(np.median(np.abs(sure - middle))), LEAST_SPREAD_M)
    inside = mask & (np.abs(depths - middle) <= OUTLIER * spread)  # false where NaN
    points = points_of(rays[sparse], depths[sparse], inside[sparse])
    low, high = np.percentile(points, BOX_PERCENTILES, axis=1)
    return ObjectPose3D(
        centroid=points.mean(axis=1, dtype=np.float64),
        low=low,
        high=high,
        inside=inside,
        origin=(x, y),
    )


def points_of(
    rays: np.ndarray, metres: np.ndarray, where: np.ndarray | EllipsisType
) -> np.ndarray:
    """Return the points of some pixels.

    Args:
        rays: (h, w, 2).
        metres: (h, w).
        where: (h, w) bool, the M pixels; or `...` for all of them.

    Returns:
        (3, M) float32 x y z in the optical frame in row order; (3, h, w) for all pixels.
    """
    z = metres[where]
    return np.stack([rays[..., 0][where] * z, rays[..., 1][where] * z, z])


def _core(mask: np.ndarray) -> np.ndarray:
    """Return the mask without its border, or the mask itself if nothing would remain."""
    side = 2 * max(1, round(ERODED * np.sqrt(np.count_nonzero(mask)))) + 1
    if not mask.size:
        return mask
    core = cv2.erode(
        mask.view(np.uint8),
        np.ones((side, side), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=(0,),
    ).view(bool)
    return core if np.count_nonzero(core) >= LEAST_POINTS else mask
