"""Images that are too old are dropped, or else every image is processed."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy")

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

RECTANGLES = {"blue": (32, 16, 96, 80)}


def ended(stats) -> int:
    return stats.processed + stats.dropped + stats.stale + stats.failed


def test_old_images_are_counted_as_stale_by_the_simulated_clock(start_node, client, image_with):
    node = start_node(use_sim_time="true", max_frame_age=5.0)
    clock = client.node.create_publisher(Clock, "/clock", 1)
    image = image_with(RECTANGLES, (128, 128))

    now = Clock()
    now.clock.sec = 1700000100

    def ask(seconds: int):
        """Send images stamped `seconds` while the clock shows 100 s, until one is published."""
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline:
            clock.publish(now)
            client.spin_until(lambda: False, 0.05)
            header = client.send(image, seconds=seconds)
            if client.spin_until(lambda h=header: any(s.header == h for s in client.stats), 2.0):
                return next(s for s in client.stats if s.header == header)
        raise AssertionError("the node did not answer")

    # Stamps end in 0.987654321 s. Until the first /clock the node has no time, and ages mean
    # nothing.
    while ask(98).transport_ms != pytest.approx(1012.3, abs=1.0):
        client.stats.clear()
    client.results.clear()
    deadline = time.monotonic() + 30.0
    while "more than max_frame_age (5 s)" not in node.output and time.monotonic() < deadline:
        client.send(image, seconds=10)
        client.spin_until(lambda: False, 0.1)
    stats = ask(97)
    assert stats.stale >= 1 and ended(stats) == stats.received
    assert {r.header.stamp.sec for r in client.results} == {1700000097}
    # The stamp went back by a second, as when a bag starts again.
    assert stats.keyframe_reason == "time_jump"


def test_with_queue_policy_all_every_image_is_processed_in_its_order(
    start_node, client, image_with
):
    node = start_node(queue_policy="all", queue_size=2)
    everything = QoSProfile(
        depth=1, history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE
    )
    bag = client.node.create_publisher(Image, "image", everything)
    assert client.spin_until(lambda: bag.get_subscription_count())
    client.spin_until(lambda: False, 0.5)
    image = image_with(RECTANGLES, (256, 256))
    headers = [client.send(image, camera=bag) for _ in range(60)]  # far faster than the network
    assert client.spin_until(lambda: client.stats and client.stats[-1].header == headers[-1])
    assert [result.header for result in client.results] == headers
    last = client.stats[-1]
    assert (last.received, last.processed, last.dropped, last.lost) == (60, 60, 0, 0)
    waiting = [stats.received - ended(stats) for stats in client.stats]
    assert 0 <= min(waiting) and max(waiting) <= 2, "no more than queue_size wait in the node"
    assert node.end()[0] == 0
