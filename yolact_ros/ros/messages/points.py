"""Convert an image's depth and objects to sensor_msgs/PointCloud2."""

from __future__ import annotations

import sys

import cv2
import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from yolact_ros.ros.outputs.result import Result
from yolact_ros.runtime.images.encodings import convert_colors

# One point, 24 bytes; `rgb` is 0xRRGGBB stored as a float, as in PCL and RViz.
LABELS = [("instance", np.uint16), ("class_id", np.uint16), ("score", np.float32)]
POINT = np.dtype(
    [("x", np.float32), ("y", np.float32), ("z", np.float32), ("rgb", np.uint32), *LABELS]
)
KINDS = {"instance": PointField.UINT16, "class_id": PointField.UINT16}
BLOCK = 2**14  # points that are written together, so that they stay in a core's cache
PAGE = bytes(4096)


def points_message(result: Result) -> PointCloud2 | None:
    """Build a cloud of the objects' points in the camera's optical frame; None without depth.

    The cloud is a list (height 1) of the object points near the object's median depth. A pixel
    with several objects yields one point, which belongs to the best of them.
    """
    if result.view is None or result.poses is None:
        return None
    owners = np.zeros(result.view.metres.shape, np.uint16)
    for number, index in reversed(list(enumerate(result.detections.best_first, start=1))):
        pose = result.poses[index]
        if pose is not None:
            x, y = pose.origin
            height, width = pose.inside.shape
            np.copyto(owners[y : y + height, x : x + width], number, where=pose.inside)
    where = owners > 0
    return _message(
        result,
        height=1,
        owners=owners[where],
        metres=result.view.metres[where],
        # One complex number per pixel is faster to select than two floats.
        rays=result.view.rays.view(np.complex64)[..., 0][where].view(np.float32),
        colours=_colours(result.image)[where],
    )


def cloud_message(result: Result) -> PointCloud2 | None:
    """Build an organized cloud with one labelled point per pixel; None without depth.

    `instance` and `class_id` equal those of `~/instance_image` and `~/class_image` at the pixel, 0
    for the background. x, y and z are NaN where the depth is unknown.
    """
    if result.view is None:
        return None
    return _message(
        result,
        height=len(result.view.metres),
        owners=result.instance_image.ravel(),
        metres=result.view.metres.ravel(),
        rays=result.view.rays,
        colours=_colours(result.image).ravel(),
    )


def _colours(image: np.ndarray) -> np.ndarray:
    """Return the colours of an image, (H, W) little-endian 0x??RRGGBB."""
    return convert_colors(image, cv2.COLOR_BGR2BGRA).view("<u4")[..., 0]


def _labels(result: Result) -> np.ndarray:
    """Return what a point of each instance id ends with, (N + 1,) uint64."""
    found = result.detections
    labels = np.zeros(len(found) + 1, LABELS)
    labels["instance"] = np.arange(len(labels))
    labels["class_id"][1:] = found.labels[found.best_first]
    labels["score"][0] = result.background_score
    labels["score"][1:] = found.mask_scores[found.best_first]
    return labels.view(np.uint64)


def _message(
    result: Result,
    *,
    height: int,
    owners: np.ndarray,
    metres: np.ndarray,
    rays: np.ndarray,
    colours: np.ndarray,
) -> PointCloud2:
    """Build the message of M points, which are written directly into its memory.

    Args:
        result: result of the image.
        height: number of rows of the cloud.
        owners: (M,) uint16 instance id of each point, 0 for the background.
        metres: (M,) float32 depths.
        rays: 2 M float32, see `DepthView`.
        colours: (M,) as from `_colours`.
    """
    assert POINT.fields is not None
    width = len(owners) // height
    message = PointCloud2(
        header=result.header,
        height=height,
        width=width,
        fields=[
            PointField(
                name=name,
                offset=POINT.fields[name][1],
                datatype=KINDS.get(name, PointField.FLOAT32),
                count=1,
            )
            for name in POINT.names or ()
        ],
        is_bigendian=sys.byteorder == "big",
        point_step=POINT.itemsize,
        row_step=POINT.itemsize * width,
        is_dense=bool(np.isfinite(metres).all()),
    )
    data = message.data
    data.frombytes(PAGE)
    data *= POINT.itemsize * len(owners) // len(PAGE)
    data.frombytes(PAGE[: POINT.itemsize * len(owners) - len(data)])
    points, rays, labels = np.frombuffer(data, POINT), rays.reshape(-1, 2), _labels(result)
    for start in range(0, len(points), BLOCK):
        block = slice(start, start + BLOCK)
        point, z = points[block], metres[block]
        np.multiply(rays[block, 0], z, out=point["x"])
        np.multiply(rays[block, 1], z, out=point["y"])
        point["z"] = z
        np.bitwise_and(colours[block], 0xFFFFFF, out=point["rgb"])
        point.view(np.uint64).reshape(-1, 3)[:, 2] = labels.take(owners[block])
    return message
