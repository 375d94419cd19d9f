"""Read depth and calibration from messages of rclpy or of a bag."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from yolact_ros.runtime.depth.images import compressed_depth_in_metres, depth_in_metres
from yolact_ros.runtime.depth.pinhole import Intrinsics
from yolact_ros.runtime.images.encodings import image_fields


def metres_of(message: Any, *, unit: float = 0.0, longest: float = math.inf) -> np.ndarray:
    """Return a depth image as (H, W) float32 metres; see `runtime.depth.images`.

    Args:
        message: a sensor_msgs/Image, or a CompressedImage of the plugin compressedDepth.
        unit: metres per unit; 0 for that of the encoding.
        longest: metres above which a depth is unknown.

    Raises:
        MessageError: it cannot be read.
    """
    if not hasattr(message, "encoding"):
        return compressed_depth_in_metres(message.data, message.format, unit=unit, longest=longest)
    return depth_in_metres(**image_fields(message), unit=unit, longest=longest)


def intrinsics_of(info: Any, *, rectified: bool) -> Intrinsics:
    """Return the intrinsics of the rectified images (p) or of the raw images (k and d).

    Args:
        info: a sensor_msgs/CameraInfo.
        rectified: whether the images are rectified.
    """
    size = info.height, info.width
    if rectified:
        p = [float(value) for value in info.p]
        return Intrinsics(size, (*p[0:3], *p[4:7], *p[8:11]))
    return Intrinsics(
        size,
        tuple(float(value) for value in info.k),
        info.distortion_model,
        tuple(float(value) for value in info.d),
    )
