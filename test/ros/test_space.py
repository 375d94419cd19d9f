"""The 3-D topics are published by a node in its own process, from known depth images."""

from __future__ import annotations

import inspect
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from depth_camera import BOX, CENTRE, FOCAL, SIZE, DepthCamera, scene
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from yolact_ros.ros.inputs.qos import PublisherEventCallbacks

POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")]
    + [("instance", "<u2"), ("class_id", "<u2"), ("score", "<f4")]
)


def test_objects_are_located_in_3d_while_a_topic_has_a_subscriber(start_node, client, image_with):
    start_node(depth_wait=3.0, track_hits=1)
    camera = DepthCamera(client)
    client.spin_until(lambda: False, 1.0)
    assert camera.depth.get_subscription_count() == 0, "nobody has subscribed to 3-D results"
    clouds, markers, infos, boxes = [], [], [], []
    expected = [clouds, markers, infos]
    node = client.node
    node.create_subscription(PointCloud2, "yolact/points", clouds.append, 5)
    node.create_subscription(MarkerArray, "yolact/markers", markers.append, 5)
    node.create_subscription(CameraInfo, "yolact/camera_info", infos.append, 5)
    try:
        from vision_msgs.msg import Detection3DArray
    except ImportError:
        pass
    else:
        expected.append(boxes)
        node.create_subscription(Detection3DArray, "yolact/detections_3d", boxes.append, 5)
    camera.connect()
    image = image_with({"blue": BOX, "red": (0, 128, 80, 256)}, SIZE)
    for encoding in ("16UC1", "32FC1"):
        for _ in range(5):  # a message may be lost on the way
            header = client.send(image)
            camera.send(header, scene(), encoding)
            if client.spin_until(lambda h=header: all(has(h, m) for m in expected), 4.0):
                break
        assert all(has(header, m) for m in expected)
        check_points(clouds[-1])
        check_markers(markers[-1])
        assert clouds[-1].header.frame_id == header.frame_id
    assert infos[-1].header.frame_id == header.frame_id and infos[-1].k[0] == FOCAL
    if boxes:
        check_detections(boxes[-1])
    # Depth of another moment is not taken for that of the image.
    other = client.send(image)
    other.stamp.nanosec += 1
    camera.send(other, scene(), "32FC1")
    client.ask(image)
    assert max(cloud.header.stamp.sec for cloud in clouds) < other.stamp.sec


def has(header: Header, messages: list) -> bool:
    """Return whether one of the messages has this image's header."""
    headers = [m.markers[0].header if isinstance(m, MarkerArray) else m.header for m in messages]
    return header.stamp in [found.stamp for found in headers]


def check_points(cloud: PointCloud2) -> None:
    assert [(f.name, f.offset, f.datatype) for f in cloud.fields] == [
        ("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7),
        ("instance", 16, 4), ("class_id", 18, 4), ("score", 20, 7),
    ]  # fmt: skip
    points = np.frombuffer(cloud.data, POINT)
    assert cloud.point_step == 24 and len(points) == cloud.width and cloud.height == 1
    blue = points[points["instance"] == 1]
    assert (blue["class_id"] == 1).all() and blue["score"] == pytest.approx(0.9)
    assert (blue["rgb"] == 0x0000FF).all()
    assert blue["z"] == pytest.approx(0.5)
    x1, y1, x2, y2 = BOX
    corners = [(x1 - CENTRE) / FOCAL * 0.5, (x2 - 1 - CENTRE) / FOCAL * 0.5]
    assert [blue["x"].min(), blue["x"].max()] == pytest.approx(corners, abs=1e-5)
    known = np.count_nonzero(scene()[y1:y2, x1:x2])
    assert 0.95 * known <= len(blue) <= known
    red = points[points["instance"] == 2]
    assert (red["class_id"] == 3).all() and (red["rgb"] == 0xFF0000).all()
    assert red["z"] == pytest.approx(2.0)


def check_markers(array: MarkerArray) -> None:
    first, *others = array.markers
    assert first.action == Marker.DELETEALL
    assert [(m.ns, m.id) for m in others] == [
        ("boxes", 1),
        ("names", 1),
        ("boxes", 2),
        ("names", 2),
    ]
    box, name = others[:2]
    x = [(edge - CENTRE) / FOCAL * 0.5 for edge in (BOX[0], BOX[2] - 1)]
    assert box.pose.position.x == pytest.approx(sum(x) / 2, abs=1e-3)
    assert box.scale.x == pytest.approx(x[1] - x[0], abs=4e-3)
    assert box.pose.position.z == pytest.approx(0.5)
    assert name.text == "#1 blue"
    assert name.scale.x == pytest.approx(name.scale.z / 2), "what RViz takes as a space's width"
    assert not any(m.lifetime.sec or m.lifetime.nanosec for m in others)


def check_detections(array) -> None:
    first, second = array.detections
    assert [d.results[0].hypothesis.class_id for d in (first, second)] == ["1", "3"]
    assert first.results[0].pose.pose.position.z == pytest.approx(0.5)
    assert second.bbox.center.position.z == pytest.approx(2.0)
    assert first.id == "1"


def test_images_do_not_wait_for_the_depth_of_the_image_before(start_node, client, image_with):
    """Missing depth would otherwise delay every image by depth_wait."""
    start_node(depth_wait=5.0)
    camera = DepthCamera(client)
    clouds = []
    client.node.create_subscription(PointCloud2, "yolact/points", clouds.append, 5)
    camera.connect()
    image = image_with({"blue": BOX}, SIZE)
    client.ask(image)
    started = time.monotonic()
    for _ in range(5):
        client.ask(image)
    assert time.monotonic() - started < 5.0 and not clouds
    assert client.spin_until(lambda: client.stats[-1].received == client.stats[-1].processed)
    # The newest one still gets its depth when that comes late.
    header = client.send(image)
    client.spin_until(lambda: any(r.header == header for r in client.results), 5.0)
    camera.send(header, scene(), "16UC1")
    assert client.spin_until(lambda: has(header, clouds), 5.0)


def test_depth_is_subscribed_as_soon_as_there_is_a_subscriber(start_node, client):
    """Matched events trigger it; without them, as on Humble, a timer does every half second."""
    start_node()
    camera = DepthCamera(client)
    took = []
    for _ in range(5):
        client.spin_until(lambda: not camera.depth.get_subscription_count())
        started = time.monotonic()
        listener = client.node.create_subscription(PointCloud2, "yolact/points", lambda _: None, 5)
        assert client.spin_until(camera.depth.get_subscription_count)
        took.append(time.monotonic() - started)
        client.node.destroy_subscription(listener)
    has_events = "matched" in inspect.signature(PublisherEventCallbacks).parameters
    assert sorted(took)[2] < (0.2 if has_events else 0.8), took


def test_every_image_of_a_bag_is_matched_with_its_depth(start_node, client, image_with):
    """The camera is faster than the node, and the depth of all images comes before the images."""
    start_node(depth_wait=5.0, queue_policy="all", queue_size=2)
    client.camera = client.node.create_publisher(Image, "image", QoSProfile(depth=100))
    camera = DepthCamera(client)
    camera.depth = client.node.create_publisher(Image, "depth/image", QoSProfile(depth=100))
    clouds = []
    client.node.create_subscription(PointCloud2, "yolact/points", clouds.append, 100)
    camera.connect()
    image = image_with({"blue": BOX}, SIZE)
    header = client.ask(image).header  # one that may have no depth: the node has found us
    clouds.clear()
    headers = []
    for step in range(1, 26):
        stamp = Time(sec=header.stamp.sec + 100 + step, nanosec=0)
        headers.append(Header(stamp=stamp, frame_id=header.frame_id))
        camera.send(headers[-1], scene(), "16UC1")
    client.spin_until(lambda: False, 0.3)
    for each in headers:
        message = Image(header=each, height=SIZE[0], width=SIZE[1], encoding="bgr8")
        message.step = 3 * SIZE[1]
        message.data.frombytes(image.tobytes())
        client.camera.publish(message)
    assert client.spin_until(lambda: len(clouds) == len(headers), 30.0), len(clouds)
    assert [cloud.header for cloud in clouds] == headers
