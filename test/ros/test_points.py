"""Clouds hold, byte by byte, what a loop over the pixels writes."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from yolact_ros.ros.messages import points
from yolact_ros.ros.messages.points import cloud_message, points_message
from yolact_ros.ros.outputs.result import Result
from yolact_ros.runtime.depth.objects import DepthView
from yolact_ros.runtime.detections import Detections

SIZE = (60, 70)


@pytest.fixture(autouse=True, params=["one block", "many blocks"])
def block(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(points, "BLOCK", 13)


def scene(count: int, image: str = "whole", *, unknown: float = 0.1) -> Result:
    """Return random objects, which overlap, in front of a plane with holes."""
    rng = np.random.default_rng(count)
    corners = np.sort(rng.integers(0, min(SIZE) + 1, (count, 2, 2)), axis=1).reshape(count, 4)
    corners = corners.astype(np.int32)
    detections = Detections(
        boxes=corners.astype(np.float32),
        scores=rng.random(count, np.float32),
        mask_scores=rng.random(count, np.float32),
        class_ids=rng.integers(0, 300, count),
        mask_rois=corners,
        masks=tuple(rng.random((y2 - y1, x2 - x1)) < 0.8 for x1, y1, x2, y2 in corners.tolist()),
        image_size=SIZE,
    )
    metres = 1 + 0.01 * rng.random(SIZE, np.float32)
    metres[rng.random(SIZE) < unknown] = np.nan
    rays = rng.normal(size=(*SIZE, 2)).astype(np.float32)
    pixels = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    pixels = {"whole": pixels, "mirrored": pixels[:, ::-1], "bgr of rgb": pixels[..., ::-1]}[image]
    pixels.flags.writeable = False  # as in a message
    names = tuple(map(str, range(300)))
    view = DepthView(metres, rays)
    return Result(
        Header(frame_id="camera"),
        pixels,
        detections,
        Time(),
        names,
        score_threshold=0.3,
        find_depth=lambda: view,
    )


def point(result: Result, y: int, x: int, number: int) -> bytes:
    """Pack the point of one pixel that belongs to the instance of this number, 0 for none."""
    depth, (right, down) = result.view.metres[y, x], result.view.rays[y, x]
    blue, green, red = result.image[y, x].tolist()
    label, score = 0, np.float32(1 - result.score_threshold)
    if number:
        index = result.detections.best_first[number - 1]
        label, score = result.detections.class_ids[index] + 1, result.detections.mask_scores[index]
    colour = red << 16 | green << 8 | blue
    where = (right * depth, down * depth, depth)
    return struct.pack("=fffIHHf", *where, colour, number, label, score)


def check(cloud: PointCloud2, expected: list[bytes], *, dense: bool) -> None:
    assert bytes(cloud.data) == b"".join(expected)
    assert cloud.width * cloud.height == len(expected) and cloud.row_step == 24 * cloud.width
    assert cloud.point_step == 24 and cloud.is_dense == dense and cloud.header.frame_id == "camera"


@pytest.mark.parametrize("image", ["whole", "mirrored", "bgr of rgb"])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_a_cloud_has_the_point_of_each_pixel(count, image):
    result = scene(count, image)
    owners = result.instance_image
    expected = [
        point(result, y, x, int(owners[y, x])) for y in range(SIZE[0]) for x in range(SIZE[1])
    ]
    cloud = cloud_message(result)
    check(cloud, expected, dense=False)
    assert (cloud.height, cloud.width) == SIZE


@pytest.mark.parametrize("image", ["whole", "mirrored", "bgr of rgb"])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_points_are_the_pixels_inside_of_objects_in_row_order(count, image):
    result = scene(count, image)
    expected = []
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            for number, index in enumerate(result.detections.best_first, start=1):
                pose = result.poses[index]
                if pose is None:
                    continue
                row, column = y - pose.origin[1], x - pose.origin[0]
                height, width = pose.inside.shape
                if 0 <= row < height and 0 <= column < width and pose.inside[row, column]:
                    expected.append(point(result, y, x, number))
                    break
    assert (len(expected) > 100) == (count > 0)
    cloud = points_message(result)
    check(cloud, expected, dense=True)
    assert cloud.height == 1
    assert all(math.isfinite(z) for z in np.frombuffer(cloud.data, points.POINT)["z"])


def test_a_cloud_without_unknown_depth_is_dense():
    assert cloud_message(scene(3, unknown=0.0)).is_dense


def test_there_is_no_cloud_without_depth():
    result = scene(3)
    blind = Result(result.header, result.image, result.detections, Time(), result.class_names)
    assert cloud_message(blind) is None and points_message(blind) is None
