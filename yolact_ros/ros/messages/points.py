"""Convert an image's depth and objects to sensor_msgs/PointCloud2."""

from __future__ import annotations

import sys
from types import EllipsisType

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from yolact_ros.ros.outputs.result import Result
from yolact_ros.runtime.depth.objects import DepthView, points_of

# One point, 24 bytes; `rgb` is 0xRRGGBB stored as a float, as in PCL and RViz.
POINT = np.dtype(
    [
        ("x", np.float32),
        ("y", np.float32),
        ("z", np.float32),
        ("rgb", np.uint32),
        ("instance", np.uint16),
        ("class_id", np.uint16),
        ("score", np.float32),
    ]
)
KINDS = {"instance": PointField.UINT16, "class_id": PointField.UINT16}


def points_message(result: Result) -> PointCloud2 | None:
    """Build a cloud of the objects' points in the camera's optical frame; None without depth.

    The cloud is a list (height 1) of the object points near the object's median depth. A pixel
    with several objects yields one point, which belongs to the best of them.
    """
    if result.view is None or result.places is None:
        return None
    owners = np.zeros(result.view.metres.shape, np.uint16)
    for number, index in reversed(list(enumerate(result.detections.best_first, start=1))):
        place = result.places[index]
        if place is not None:
            x, y = place.origin
            height, width = place.inside.shape
            np.copyto(owners[y : y + height, x : x + width], number, where=place.inside)
    points = _points(result, result.view, owners=owners, where=owners > 0)
    return _message(points.reshape(1, -1), result)


def cloud_message(result: Result) -> PointCloud2 | None:
    """Build an organized cloud with one labelled point per pixel; None without depth.

    `instance` and `class_id` equal those of `~/instance_image` and `~/class_image` at the pixel, 0
    for the background. x, y and z are NaN where the depth is unknown.
    """
    if result.view is None:
        return None
    owners = result.instance_image
    return _message(_points(result, result.view, owners=owners, where=...), result)


def _points(
    result: Result, view: DepthView, *, owners: np.ndarray, where: np.ndarray | EllipsisType
) -> np.ndarray:
    """Build the points of some pixels.

    Args:
        result: result of the image.
        view: depth of the image.
        owners: (H, W) uint16 instance id of each pixel, 0 for the background.
        where: the pixels, as an index of (H, W).

    Returns:
        (M,) or, for all pixels, (H, W) array of dtype `POINT`.
    """
    found = result.detections
    numbers = owners[where]
    class_ids = np.zeros(len(found) + 1, np.uint16)
    class_ids[1:] = found.labels[found.best_first]
    scores = np.empty(len(found) + 1, np.float32)
    scores[0] = result.background_score
    scores[1:] = found.mask_scores[found.best_first]
    points = np.empty(numbers.shape, POINT)
    points["x"], points["y"], points["z"] = points_of(view.rays, view.metres, where)
    colours = result.image[where].astype(np.uint32)
    points["rgb"] = colours[..., 2] << 16 | colours[..., 1] << 8 | colours[..., 0]
    points["instance"] = numbers
    points["class_id"] = class_ids[numbers]
    points["score"] = scores[numbers]
    return points


def _message(points: np.ndarray, result: Result) -> PointCloud2:
    assert POINT.fields is not None
    height, width = points.shape
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
        is_dense=bool(np.isfinite(points["z"]).all()),
    )
    message.data.frombytes(points.tobytes())
    return message
