"""Several cameras share one model, one of them far faster than the network."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from yolact_ros.msg import FrameStats, InstanceArray


def settled(stats: FrameStats) -> bool:
    return stats.received == stats.processed + stats.dropped


def test_a_fast_camera_does_not_starve_a_slow_one(start, client, squares_bundle, image_with):
    node = start(
        "yolact_node",
        ros_arguments=(
            *("-r", f"__ns:={client.namespace}", "-p", f"model:={squares_bundle}"),
            *("-p", "cameras:=[front, rear]", "-p", "threads:=1"),
        ),
    )
    cameras, results, stats = {}, {}, {}
    for name in ("front", "rear"):
        cameras[name] = client.node.create_publisher(Image, f"{name}/image", QoSProfile(depth=1))
        results[name], stats[name] = [], []
        for kind, topic, found in (
            (InstanceArray, "instances", results[name]),
            (FrameStats, "stats", stats[name]),
        ):
            client.node.create_subscription(kind, f"yolact/{name}/{topic}", found.append, 200)
    node.wait_for(f"Waiting for images on {client.namespace}/rear/image")
    for camera in cameras.values():
        assert client.spin_until(camera.get_subscription_count)
    client.spin_until(lambda: False, 0.5)

    images = {
        "front": image_with({"blue": (32, 16, 96, 80)}, (512, 512)),
        "rear": image_with({"red": (64, 64, 128, 128)}, (128, 128)),
    }
    sent = 0
    for _ in range(10):
        # While the front camera sends all the time, each image of the other one has its answer.
        answered, deadline = len(results["rear"]), time.monotonic() + 20.0
        resend = 0.0
        while len(results["rear"]) == answered:
            now = time.monotonic()
            assert now < deadline, "the slow camera starves"
            if now >= resend:  # best effort: an image may be lost before the node has it
                client.send(images["rear"], camera=cameras["rear"])
                sent, resend = sent + 1, now + 1.0
            client.send(images["front"], camera=cameras["front"])
            client.spin_until(lambda: False, 0.001)
    # Stats follow their result.
    last = results["rear"][-1].header
    assert client.spin_until(lambda: stats["rear"] and stats["rear"][-1].header == last)
    assert client.spin_until(lambda: stats["front"])

    rear, front = stats["rear"][-1], stats["front"][-1]
    assert 10 <= rear.received <= sent and rear.failed == front.failed == 0
    assert rear.received - rear.processed - rear.dropped <= 1
    assert front.received > rear.received, "the counters are those of one camera each"
    for name, expected in (("front", "blue"), ("rear", "red")):
        assert results[name]
        height, width = images[name].shape[:2]
        for result in results[name]:
            assert [i.class_name for i in result.instances] == [expected]
            assert (result.height, result.width) == (height, width)
            assert result.frame_type == InstanceArray.KEYFRAME
    # Sizes differ between the cameras, but not within one: each has a stream of its own.
    for name in cameras:
        reasons = {one.keyframe_reason for one in stats[name]}
        assert "size_change" not in reasons, reasons
