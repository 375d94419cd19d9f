"""The depth and calibration of one camera are received and matched, in this process."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from yolact_ros.errors import MessageError
from yolact_ros.ros.inputs.depth import DepthInput
from yolact_ros.ros.parameters.settings import DepthSettings
from yolact_ros.runtime.depth.images import intrinsics_of

STAMP = Time(sec=7, nanosec=5)
AT_ONCE = DepthSettings(depth_wait=0.0)


@pytest.fixture
def camera(ros):
    """Create a depth camera named front, and a `DepthInput` that needs what `wanted` returns."""
    node = rclpy.create_node("depth_input", namespace=f"/test{time.monotonic_ns() % 10**9}")
    wanted = SimpleNamespace(depth=True, info=True)
    depth = DepthInput(
        node,
        "front",
        keeps_all=False,
        needs_depth=lambda: wanted.depth,
        needs_info=lambda: wanted.info,
    )
    publishers = [
        node.create_publisher(Image, "front/depth/image", QoSProfile(depth=10)),
        node.create_publisher(CameraInfo, "front/camera_info", QoSProfile(depth=10)),
    ]

    def spin_until(condition):
        deadline = time.monotonic() + 20.0
        while not condition():
            assert time.monotonic() < deadline
            rclpy.spin_once(node, timeout_sec=0.02)

    yield SimpleNamespace(
        node=node, depth=depth, wanted=wanted, publishers=publishers, spin_until=spin_until
    )
    depth.close()
    node.destroy_node()


def depth_message(encoding="16UC1", height=4, width=6) -> Image:
    message = Image(header=Header(stamp=STAMP), height=height, width=width, encoding=encoding)
    message.step = 2 * width
    message.data.frombytes(np.full((height, width), 1500, "<u2").tobytes())
    return message


def info_message(**fields) -> CameraInfo:
    values = {"height": 4, "width": 6, "k": [2.0, 0, 3, 0, 2, 2, 0, 0, 1]} | fields
    return CameraInfo(**{k: np.array(v, float) if k in "kp" else v for k, v in values.items()})


def test_depth_is_found_by_its_stamp_and_a_message_says_what_is_missing(camera):
    find = camera.depth.find
    camera.spin_until(lambda: all(p.get_subscription_count() for p in camera.publishers))
    with pytest.raises(MessageError, match="front/depth/image has the stamp.*1 publishers"):
        find(STAMP, (4, 6), settings=AT_ONCE)
    assert camera.depth.view(STAMP, (4, 6), settings=AT_ONCE) is None
    camera.publishers[0].publish(depth_message())
    patient = DepthSettings(depth_wait=0.0, depth_tolerance=1e-6)
    late = Time(sec=7, nanosec=900)

    def has_come():
        try:
            find(STAMP, (4, 6), settings=AT_ONCE)
        except MessageError as error:
            return "no camera info on" in str(error)

    camera.spin_until(has_come)
    camera.publishers[1].publish(info_message())
    camera.spin_until(lambda: camera.depth.info)
    view = find(STAMP, (4, 6), settings=AT_ONCE)
    np.testing.assert_allclose(view.metres, 1.5, rtol=1e-6)
    np.testing.assert_allclose(view.rays[0, 0], [-1.5, -1.0])
    with pytest.raises(MessageError, match="waited 0 s"):
        find(late, (4, 6), settings=AT_ONCE)
    assert find(late, (4, 6), settings=patient).metres.shape == (4, 6)
    with pytest.raises(MessageError, match="is 6x4, but the image is 12x8; .*registered"):
        find(STAMP, (8, 12), settings=AT_ONCE)
    camera.publishers[1].publish(info_message(width=12))
    camera.spin_until(lambda: camera.depth.info.width == 12)
    with pytest.raises(MessageError, match="images of 12x4"):
        find(STAMP, (4, 6), settings=AT_ONCE)


def test_compressed_depth_is_found_on_the_plugins_topic_or_the_message_names_it(camera):
    node, wanted = camera.node, {"needs_depth": lambda: True, "needs_info": lambda: True}
    name = f"{node.get_namespace()}/rear/depth/image"
    plugin = node.create_publisher(CompressedImage, f"{name}/compressedDepth", 1)
    raw = DepthInput(node, "rear", keeps_all=False, **wanted)
    camera.spin_until(lambda: node.count_publishers(f"{name}/compressedDepth"))
    with pytest.raises(MessageError, match="parameter depth_transport to compressedDepth"):
        raw.find(STAMP, (4, 6), settings=AT_ONCE)
    raw.close()
    depth = DepthInput(node, "rear", keeps_all=False, transport="compressedDepth", **wanted)
    info = node.create_publisher(CameraInfo, "rear/camera_info", 1)
    camera.spin_until(lambda: plugin.get_subscription_count() and info.get_subscription_count())
    message = CompressedImage(header=Header(stamp=STAMP), format="16UC1; compressedDepth png")
    png = cv2.imencode(".png", np.full((4, 6), 1500, np.uint16))[1]
    message.data.frombytes(bytes(12) + png.tobytes())
    plugin.publish(message)
    info.publish(info_message())
    camera.spin_until(lambda: depth.info and depth._images._items)
    view = depth.find(STAMP, (4, 6), settings=AT_ONCE)
    np.testing.assert_allclose(view.metres, 1.5, rtol=1e-6)
    later = Time(sec=STAMP.sec + 1)
    bomb = CompressedImage(header=Header(stamp=later), format=message.format)
    side = (30_000).to_bytes(4, "big")  # of an image that would take gigabytes
    bomb.data.frombytes(bytes(12) + png.tobytes()[:16] + side + side + png.tobytes()[24:])
    plugin.publish(bomb)
    camera.spin_until(lambda: later.sec * 10**9 + later.nanosec in depth._images._items)
    with pytest.raises(MessageError, match="is 30000x30000, but the image is 6x4"):
        depth.find(later, (4, 6), settings=AT_ONCE)
    depth.close()


def test_depth_that_nobody_publishes_is_not_waited_for(ros):
    node = rclpy.create_node("alone", namespace=f"/test{time.monotonic_ns() % 10**9}")
    wanted = {"needs_depth": lambda: True, "needs_info": lambda: True}
    depth = DepthInput(node, "", keeps_all=False, **wanted)
    started = time.monotonic()
    assert depth.view(STAMP, (4, 6), settings=DepthSettings(depth_wait=10.0)) is None
    assert time.monotonic() - started < 5.0
    depth.close()
    node.destroy_node()


def test_waiting_for_depth_ends_with_the_node(camera):
    camera.spin_until(lambda: camera.publishers[0].get_subscription_count())
    closing = threading.Timer(0.2, camera.depth._images.close)
    closing.start()
    started = time.monotonic()
    assert camera.depth.view(STAMP, (4, 6), settings=DepthSettings(depth_wait=10.0)) is None
    assert time.monotonic() - started < 5.0
    closing.join()


def test_nothing_is_received_without_demand(camera):
    depth, info = camera.publishers
    camera.spin_until(lambda: depth.get_subscription_count() and info.get_subscription_count())
    camera.wanted.depth = False
    camera.spin_until(lambda: not depth.get_subscription_count())
    assert info.get_subscription_count() == 1
    camera.wanted.info = False
    camera.spin_until(lambda: not info.get_subscription_count())


def test_calibration_that_was_latched_earlier_is_received(camera):
    _, volatile = camera.publishers
    camera.wanted.info = False
    camera.spin_until(lambda: not volatile.get_subscription_count())
    camera.node.destroy_publisher(volatile)
    latched = camera.node.create_publisher(
        CameraInfo,
        "front/camera_info",
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    )
    latched.publish(info_message(width=6))
    assert camera.depth.info is None
    camera.wanted.info = True
    camera.spin_until(lambda: camera.depth.info)
    camera.wanted.info = False
    camera.spin_until(lambda: not latched.get_subscription_count())


def test_rectified_images_use_p_and_no_distortion():
    info = info_message(p=[5.0, 0, 1, 0, 0, 6, 2, 0, 0, 0, 1, 0], d=[0.1, 0, 0, 0, 0])
    info.distortion_model = "plumb_bob"
    rectified = intrinsics_of(info, rectified=True)
    assert rectified.matrix == (5, 0, 1, 0, 6, 2, 0, 0, 1) and not rectified.distortion
    own = intrinsics_of(info, rectified=False)
    assert own.matrix == (2, 0, 3, 0, 2, 2, 0, 0, 1)
    assert own.model == "plumb_bob" and own.distortion[0] == 0.1
    assert own.size == rectified.size == (4, 6)
