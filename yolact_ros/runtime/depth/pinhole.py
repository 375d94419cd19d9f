"""Compute the viewing directions of a camera's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from yolact_ros.errors import MessageError

# Distortion models of sensor_msgs/CameraInfo (sensor_msgs/distortion_models.hpp).
PLUMB_BOB = ("plumb_bob", "rational_polynomial")
EQUIDISTANT = ("equidistant", "fisheye")


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
