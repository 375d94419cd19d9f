"""The points of the objects as sensor_msgs/PointCloud2."""

from __future__ import annotations

import sys

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from yolact_ros.ros.result import Result
from yolact_ros.runtime.label_images import instance_image

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

    A pixel in several masks gives one point, that of the best object.
    """
    if result.places is None:
        return None
    owners = instance_image(result.detections, result.best_first)
    parts = []
    for number, index in enumerate(result.best_first, start=1):
        place = result.places[index]
        if place is None:
            continue
        own = owners[place.pixels[:, 0], place.pixels[:, 1]] == number
        rows, columns = place.pixels[own].T
        part = np.zeros(len(rows), POINT)
        part["x"], part["y"], part["z"] = place.points[own].T
        part["rgb"] = result.image[rows, columns].astype(np.uint32) @ np.array(
            [1, 1 << 8, 1 << 16]
        )
        part["instance"] = number
        part["class_id"] = result.detections.class_ids[index]
        part["score"] = result.detections.mask_scores[index]
        parts.append(part)
    return _message(np.concatenate(parts) if parts else np.zeros(0, POINT), result)


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
