"""The node publishes /diagnostics from its own process; test_health.py covers the levels."""

from __future__ import annotations

import math
import types

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("diagnostic_msgs")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image

from yolact_ros.ros.diagnostics.health import STAGES, Percentiles
from yolact_ros.ros.diagnostics.publisher import CameraWindow, LatencyRecorder, memory_mb
from yolact_ros.ros.inputs.mailbox import Inbox
from yolact_ros.ros.inputs.qos import SubscriptionWatch


def test_readings_are_differences_over_the_window():
    mailbox = Inbox().new_mailbox()
    watch = types.SimpleNamespace(lost=0)
    camera = types.SimpleNamespace(topic="/image", mailbox=mailbox, watch=watch)
    gauge = CameraWindow(camera, LatencyRecorder())
    first = gauge.tick(100.0, state="active")
    assert (first.window_s, first.silence_s, first.recent.received) == (0.0, 0.0, 0)
    for second in range(1, 21):
        for _ in range(3):
            mailbox.put("image")
        watch.lost += 2
        reading = gauge.tick(100.0 + second, state="active")
    assert (reading.window_s, reading.silence_s) == (10.0, 0.0)
    assert (reading.recent.received, reading.recent.dropped, reading.recent_lost) == (30, 30, 20)
    assert (reading.counts.received, reading.lost) == (60, 40)
    for second in range(21, 27):
        reading = gauge.tick(100.0 + second, state="active")
    assert reading.silence_s == 6.0
    # What was before the node became active again does not count as silence.
    assert gauge.tick(130.0, state="inactive").silence_s == 0.0
    assert gauge.tick(131.0, state="active").silence_s == 1.0


def test_a_recorder_returns_the_percentiles_of_its_values():
    meter = LatencyRecorder()
    assert meter.read(0.0) == ({}, None)
    for number in range(3):
        times = {f"{name}_ms": float(number) for name in (*STAGES, "latency")}
        meter.note(times, feature_age_s=0.1 * number)
    times, age = meter.read(0.0)
    assert set(times) == {*STAGES, "latency"}
    assert times["wait"].p50 == 1.0 and times["wait"].longest == 2.0
    assert age.longest == pytest.approx(0.2)
    meter.note(
        {"wait_ms": 9.0}, feature_age_s=float("nan")
    )  # of a camera that does not stamp its images
    times, age = meter.read(0.0)
    assert age.longest == pytest.approx(0.2)
    assert times["wait"].longest == 9.0 and times["latency"].longest == 2.0
    assert meter.read(float("inf")) == ({}, None)
    assert Percentiles.of([1.0]) is not None


def test_the_memory_of_this_process_is_known():
    assert 10 < memory_mb() < 100000


def test_the_node_reports_its_model_and_a_camera_that_stops(start_node, client, image_with):
    received: dict[str, DiagnosticStatus] = {}

    def take(message: DiagnosticArray) -> None:
        for status in message.status:
            received[status.name] = status

    client.node.create_subscription(DiagnosticArray, "/diagnostics", take, 10)
    node = start_node(image_timeout=2.0)
    name = f"{client.namespace.lstrip('/')}/yolact"
    camera = f"{name}: {client.namespace}/image"
    client.ask(image_with({"blue": (0, 0, 64, 64)}, (128, 128)))
    assert client.spin_until(
        lambda: camera in received and ("processed", "1") in values(received[camera])
    )
    assert received[camera].level == DiagnosticStatus.WARN, "the client's stamps are years old"
    assert "before the node's time" in received[camera].message
    assert "latency p50/p95/max (ms)" in dict(values(received[camera]))
    model = received[f"{name}: model"]
    assert model.message == "active, squares on OnnxRuntime"
    assert client.spin_until(lambda: received[camera].level == DiagnosticStatus.STALE)
    assert received[camera].message.startswith("No image for ")
    assert received[camera].message.endswith(f" on {client.namespace}/image; publishers: 1")
    node.wait_for("No image for ")
    assert node.output.count("No image for ") <= 2, "at most before the image and after it"
    client.node.destroy_publisher(client.camera)
    client.node.create_publisher(Image, "other/image", 1)
    assert client.spin_until(
        lambda: f"Images are published on {client.namespace}/other" in received[camera].message
    )


def test_simulated_time_that_does_not_run_is_explained(start_node, client, image_with):
    statuses: list[DiagnosticStatus] = []
    client.node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: statuses.extend(message.status), 10
    )
    node = start_node(use_sim_time=True)
    client.ask(image_with({"blue": (0, 0, 64, 64)}, (128, 128)))
    assert client.spin_until(lambda: client.stats)
    assert math.isnan(client.stats[-1].latency_ms) and math.isnan(client.stats[-1].transport_ms)
    assert client.spin_until(lambda: any("/clock" in status.message for status in statuses))
    assert any(s.level == DiagnosticStatus.ERROR for s in statuses if "/clock" in s.message)
    node.wait_for("no time has arrived on /clock (0 publishers)")


def test_losses_add_up_over_subscriptions(client):
    """A new subscription counts from 0 again, but the node's counts never decrease."""
    watch = SubscriptionWatch(client.node, "/image")
    for change, total in ((120, 120), (1, 121), (1, 1), (2, 3)):
        watch._on_lost(types.SimpleNamespace(total_count=total, total_count_change=change))
    assert watch.lost == 124


def values(status: DiagnosticStatus) -> list[tuple[str, str]]:
    return [(entry.key, entry.value) for entry in status.values]
