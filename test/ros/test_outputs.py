"""The topics other than `~/instances` are published by a node in its own process."""

from __future__ import annotations

import threading
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from sensor_msgs.msg import CompressedImage, Image

from yolact_ros.ros.outputs.space_thread import SpaceThread
from yolact_ros.ros.outputs.topics import HAS_VISION_MSGS, image_topics, space_topics

REPOSITORY = Path(__file__).resolve().parent.parent.parent

RECTANGLES = {"blue": (32, 16, 96, 80), "green": (64, 48, 160, 144)}  # they overlap
SIZE = (256, 256)


@pytest.fixture
def collect(client):
    """Subscribe to topics of the node, NAME=TYPE; return lists that fill with their messages."""

    def subscribe(qos=10, **topics):
        messages = {name: [] for name in topics}
        for name, kind in topics.items():
            topic = name.replace("__", "/")
            client.node.create_subscription(kind, f"yolact/{topic}", messages[name].append, qos)
        assert client.spin_until(
            lambda: all(
                client.node.count_publishers(f"{client.namespace}/yolact/{n.replace('__', '/')}")
                for n in topics
            )
        )
        client.spin_until(lambda: False, 0.5)  # the node has to find us, too
        return messages

    return subscribe


def labels(message: Image) -> np.ndarray:
    dtype = {"mono8": np.uint8, "mono16": np.uint16}[message.encoding]
    assert message.step == message.width * dtype().itemsize
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def test_label_images_and_the_jpeg_agree_with_the_instances(
    start_node, client, image_with, collect
):
    node = start_node()
    received = collect(
        instance_image=Image, class_image=Image, confidence_image=Image,
        overlay=Image, overlay__compressed=CompressedImage,
    )  # fmt: skip
    image = image_with({"blue": RECTANGLES["blue"], "red": (0, 128, 80, 256)}, SIZE)
    for _ in range(5):
        result = client.ask(image)
        if client.spin_until(lambda: all(received.values()), 2.0):
            break
    assert all(m[-1].header.frame_id == result.header.frame_id for m in received.values())
    header = received["instance_image"][-1].header
    assert client.spin_until(lambda: all(m[-1].header == header for m in received.values()))
    instances = labels(received["instance_image"][-1])
    classes = labels(received["class_image"][-1])
    confidence = labels(received["confidence_image"][-1])
    assert instances.shape == SIZE
    for instance in result.instances:
        inside = instances == instance.instance_id
        assert inside.sum() == instance.area
        assert (classes[inside] == instance.class_id).all()
        assert (confidence[inside] == round(instance.score * 255)).all()
    assert {instance.class_id for instance in result.instances} == {1, 3}
    background = instances == 0
    assert not classes[background].any()
    assert (confidence[background] == 178).all(), "255 times (1 - score_threshold)"
    raw = received["overlay"][-1]
    drawn = np.frombuffer(raw.data, np.uint8).reshape(*SIZE, 3)
    (jpeg,) = received["overlay__compressed"][-1:]
    decoded = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
    assert "jpeg" in jpeg.format
    assert np.abs(decoded.astype(int) - drawn).mean() < 8
    if not HAS_VISION_MSGS:
        assert node.output.count("vision_msgs is not installed") == 1
        assert not client.node.count_publishers(f"{client.namespace}/yolact/detections")


def test_every_3d_result_is_counted_also_one_that_a_newer_one_replaces():
    started, go = threading.Event(), threading.Event()
    published = []

    def publish(result):
        started.set()
        assert go.wait(20.0)
        if result.view == "broken":
            raise RuntimeError("no space")
        published.append(result.view)

    logged = []
    logger = types.SimpleNamespace(error=lambda message, **_: logged.append(message))
    thread = SpaceThread(publish, logger=logger)
    for number, view in enumerate(["first", "second", "third", None, "broken", "last"]):
        thread.submit(types.SimpleNamespace(view=view))
        assert started.wait(20.0)
        if number >= 2:  # the second one was still waiting
            go.set()
            deadline = time.monotonic() + 20.0
            while thread.counts().in_flight and time.monotonic() < deadline:
                time.sleep(0.005)
    counts = thread.counts()
    assert published == ["first", "third", None, "last"]
    assert (counts.received, counts.processed, counts.failed, counts.dropped) == (6, 3, 2, 1)
    assert len(logged) == 1 and "RuntimeError: no space" in logged[0]
    assert thread.pause(1.0)
    thread.submit(types.SimpleNamespace(view="while paused"))
    assert thread.counts().dropped == 2
    thread.end()


def test_an_object_keeps_its_track_id_until_the_clock_jumps_back(start_node, client, image_with):
    start_node(track_hits=2, track_memory=10.0)
    for step in range(6):
        box = (32 + 4 * step, 16, 96 + 4 * step, 80)
        result = client.ask(image_with({"blue": box}, SIZE))
    assert result.instances[0].track_id == 1
    client.stamp_ms -= 100_000
    for _ in range(4):
        result = client.ask(image_with({"blue": (64, 16, 128, 80)}, SIZE))
    assert result.instances[0].track_id == 2


def test_rviz_is_set_up_for_topics_and_qos_that_the_node_has():
    config = yaml.safe_load((REPOSITORY / "config" / "yolact.rviz").read_text())
    shown = [d["Topic"] for d in config["Visualization Manager"]["Displays"] if "Topic" in d]
    qos = {t.name.replace("~", "/yolact"): t.qos for t in [*image_topics(), *space_topics()]}
    assert [topic["Value"] for topic in shown] == [
        "/yolact/overlay",
        "/yolact/points",
        "/yolact/markers",
    ]
    for topic in shown:
        offered = qos[topic["Value"]]
        asked = QoSProfile(
            depth=topic["Depth"],
            reliability=ReliabilityPolicy[topic["Reliability Policy"].upper().replace(" ", "_")],
            durability=DurabilityPolicy[topic["Durability Policy"].upper()],
        )
        assert qos_check_compatible(offered, asked)[0] != QoSCompatibility.ERROR


def test_late_subscribers_get_label_info_which_matches_the_detections(
    start_node, client, image_with, collect
):
    vision = pytest.importorskip("vision_msgs.msg")
    start_node(track_hits=1)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    info = collect(label_info=vision.LabelInfo, qos=latched)["label_info"]
    assert client.spin_until(lambda: info)
    names = {c.class_id: c.class_name for c in info[-1].class_map}
    assert names == {0: "background", 1: "blue", 2: "green", 3: "red"}
    assert info[-1].threshold == pytest.approx(0.3)
    boxes = collect(detections=vision.Detection2DArray)["detections"]
    image = image_with({"red": (0, 128, 80, 256)}, SIZE)
    for _ in range(5):
        client.ask(image)
        if client.spin_until(lambda: boxes, 2.0):
            break
    (detection,) = boxes[-1].detections
    assert detection.header == boxes[-1].header
    (hypothesis,) = detection.results
    assert names[int(hypothesis.hypothesis.class_id)] == "red"
    assert hypothesis.hypothesis.score == pytest.approx(0.7)
    assert detection.id == "1"
    box = detection.bbox
    assert (box.center.position.x, box.center.position.y) == pytest.approx((40, 192))
    assert (box.size_x, box.size_y) == pytest.approx((80, 128))
    client.ask(image_with({}, SIZE))
    assert client.spin_until(lambda: not boxes[-1].detections)
