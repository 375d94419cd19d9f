"""The points of the objects as sensor_msgs/PointCloud2."""

from __future__ import annotations

import sys

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from yolact_ros.ros.outputs.result import Result
from yolact_ros.runtime.depth.objects import points_of

# One point, 24 bytes; `rgb` is the number 0xRRGGBB in the place of a float, as in PCL and RViz.
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
    """The points of all objects in the camera's optical frame; None if there is no depth.

    A pixel of several objects gives one point, that of the best one.
    """
    if result.view is None or result.places is None:
        return None
    owners = np.zeros(result.view.metres.shape, np.uint16)
    for number, index in reversed(list(enumerate(result.best_first, start=1))):
        place = result.places[index]
        if place is not None:
            x, y = place.origin
            height, width = place.inside.shape
            np.copyto(owners[y : y + height, x : x + width], number, where=place.inside)
    where = owners > 0
    found = result.detections
    order = np.asarray(result.best_first, np.int64)[owners[where].astype(np.int64) - 1]
    points = np.empty(len(order), POINT)
    points["x"], points["y"], points["z"] = points_of(result.view.rays, result.view.metres, where)
    blue, green, red = result.image[where].astype(np.uint32).T
    points["rgb"] = red << 16 | green << 8 | blue
    points["instance"] = owners[where]
    points["class_id"] = found.labels[order]
    points["score"] = found.mask_scores[order]
    return _message(points, result)


def _message(points: np.ndarray, result: Result) -> PointCloud2:
    assert POINT.fields is not None
    message = PointCloud2(
        header=result.header,
        height=1,
        width=len(points),
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
        row_step=POINT.itemsize * len(points),
        is_dense=True,
    )
    message.data.frombytes(points.tobytes())
    return message
