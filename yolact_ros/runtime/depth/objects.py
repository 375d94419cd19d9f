"""Locate objects in 3-D by their masks on the depth image of the colour image.

The calibration of a camera determines the viewing directions of its pixels. All coordinates are in
metres in the camera's optical frame: z forward, x right, y down (REP 103).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import cv2
import numpy as np

from yolact_ros.errors import MessageError
from yolact_ros.runtime.detections import Detections

ERODED = 0.03  # fraction of the square root of a mask's area; borders also show the background
OUTLIER = 3.0  # standard deviations from the median depth, estimated by the median deviation
LEAST_SPREAD_M = 0.01  # minimum of that standard deviation, for flat objects seen frontally
BOX_PERCENTILES = (0.5, 99.5)  # of the points of an object along each axis
LEAST_POINTS = 10
STEEPEST = 573.0  # x / z or y / z; the tangent of 89.9 degrees
SAMPLES = 2500  # pixels of a mask used for statistics
# Distortion models of sensor_msgs/CameraInfo (sensor_msgs/distortion_models.hpp).
PLUMB_BOB = ("plumb_bob", "rational_polynomial")
EQUIDISTANT = ("equidistant", "fisheye")


@dataclass(frozen=True, eq=False)
class DepthView:
    """Holds the depth of one image.

    Attributes:
        metres: (H, W) float32 along the optical axis; NaN where the depth or the ray is unknown.
        rays: (H, W, 2) float32, see `pixel_rays`.
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


@dataclass(frozen=True)
class Intrinsics:
    """Holds a camera's calibration, as in sensor_msgs/CameraInfo.

    Attributes:
        size: (height, width) of the images in pixels.
        matrix: fx, 0, cx, 0, fy, cy, 0, 0, 1 of the pinhole model, in pixels, row by row.
        model: name of the distortion model; empty for none.
        distortion: its coefficients; empty or zeros for an image without distortion.
    """

    size: tuple[int, int]
    matrix: tuple[float, ...]
    model: str = ""
    distortion: tuple[float, ...] = ()


def pixel_rays(intrinsics: Intrinsics) -> np.ndarray:
    """Return the point at depth 1 that each pixel's centre sees.

    Args:
        intrinsics: calibration of the camera. The centre of pixel (0, 0) is at (0, 0), as in
            OpenCV and image_geometry.

    Returns:
        (H, W, 2) float32 x / z and y / z in the camera's optical frame: z forward, x right,
        y down. Multiply by the depth to get metres.

    Raises:
        MessageError: the camera is not calibrated, or its distortion model is unknown.
    """
    if not np.isfinite([*intrinsics.matrix, *intrinsics.distortion]).all():
        raise MessageError(
            "The camera info contains infinite or NaN values in k, d or p; calibrate "
            "the camera, or correct its calibration file."
        )
    height, width = intrinsics.size
    fx, fy = intrinsics.matrix[0], intrinsics.matrix[4]
    cx, cy = intrinsics.matrix[2], intrinsics.matrix[5]
    if not (fx > 0 and fy > 0):
        raise MessageError(
            f"The camera info has the focal lengths {fx:g} and {fy:g}, so the camera is not "
            "calibrated; 3-D topics require the fields k and d, or p for rectified images."
        )
    if any(intrinsics.distortion):
        return _undistorted(intrinsics)
    rays = np.empty((height, width, 2), np.float32)
    rays[..., 0] = (np.arange(width) - cx) / fx
    rays[..., 1] = ((np.arange(height) - cy) / fy)[:, None]
    return rays


def _undistorted(intrinsics: Intrinsics) -> np.ndarray:
    height, width = intrinsics.size
    matrix = np.array(intrinsics.matrix, np.float64).reshape(3, 3)
    distortion = np.array(intrinsics.distortion, np.float64)
    pixels = np.empty((height, width, 2), np.float64)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    if intrinsics.model in PLUMB_BOB:
        undistort: Any = cv2.undistortPoints
    elif intrinsics.model in EQUIDISTANT:
        undistort = cv2.fisheye.undistortPoints
    else:
        raise MessageError(
            f"The camera info has the distortion model {intrinsics.model!r}; expected one of: "
            f"{', '.join((*PLUMB_BOB, *EQUIDISTANT))}. Rectify image and depth, and set the "
            "parameter rectified."
        )
    try:
        rays = undistort(pixels.reshape(-1, 1, 2), matrix, distortion)
    except cv2.error as error:
        raise MessageError(
            f"The camera info has {len(distortion)} distortion coefficients, which do not fit "
            f"its model {intrinsics.model!r}: {error.err}."
        ) from None
    return rays.reshape(height, width, 2).astype(np.float32)
