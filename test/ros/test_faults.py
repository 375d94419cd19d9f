"""The node survives failing models, cameras that come and go, and other nodes beside it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ament_index_python.packages import get_package_prefix
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolact_ros.msg import InstanceArray
from yolact_ros.ros.diagnostics.publisher import memory_mb
from yolact_ros.ros.inputs.camera import CameraFrame
from yolact_ros.ros.inputs.mailbox import FrameCounts
from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.node import SUCCESS, YolactNode

# A signal must end a node within 2 s of an idle machine; where it did not, it would take 10 s and
# more on any.
END_S = 5.0
GOOD = {"red": (32, 16, 96, 80)}
BAD = {"blue": (0, 0, 64, 64)}  # the first sample is 255


def send_until(client, image, condition) -> bool:
    """Publish an image repeatedly until a condition holds."""
    deadline = time.monotonic() + 30.0
    while not condition() and time.monotonic() < deadline:
        client.send(image)
        client.spin_until(condition, 0.05)
    return bool(condition())


def test_a_failing_model_costs_an_image_then_is_reloaded_then_ends_the_process(
    start_node, client, fragile_bundle, image_with
):
    node = start_node(model=fragile_bundle, max_failures=4)
    good, bad = image_with(GOOD, (128, 128)), image_with(BAD, (128, 128))
    client.ask(good)
    assert send_until(client, bad, lambda: "An image failed" in node.output)
    header = client.ask(good).header
    assert client.spin_until(lambda: any(s.header == header for s in client.stats))
    assert client.stats[-1].failed >= 1 and "Reloading" not in node.output

    assert send_until(client, bad, lambda: "4 consecutive images" in node.output)
    assert client.spin_until(lambda: node.output.count("Waiting for images") == 2)
    client.connect()
    assert [i.class_name for i in client.ask(good).instances] == ["red"]

    assert send_until(client, bad, lambda: node.process.poll() is not None)
    assert node.wait() == 1
    assert "reloaded and failed again" in node.output and "out of data bounds" in node.output
    assert node.output.count("4 consecutive images") == 3
    assert "Traceback" not in node.output


def test_a_managed_node_whose_model_keeps_failing_goes_back_to_unconfigured(
    start, client, manager, fragile_bundle, image_with
):
    node = start(
        "yolact_node",
        ros_arguments=(
            *("-r", f"__ns:={client.namespace}", "-p", "autostart:=false"),
            *("-p", f"model:={fragile_bundle}", "-p", "max_failures:=2"),
        ),
    )
    manager.wait()
    good, bad = image_with(GOOD, (128, 128)), image_with(BAD, (128, 128))
    for attempt in (1, 2):
        assert manager.set(Transition.TRANSITION_CONFIGURE)
        assert manager.set(Transition.TRANSITION_ACTIVATE)
        client.connect()
        assert [i.class_name for i in client.ask(good).instances] == ["red"]
        assert send_until(
            client, bad, lambda n=attempt: node.output.count("2 consecutive images") == n
        )
        assert client.spin_until(lambda: manager.state() == State.PRIMARY_STATE_UNCONFIGURED, 20.0)
    status, seconds = node.end()
    assert status == 0 and seconds < END_S


def test_an_image_is_accounted_for_once_whatever_fails_afterwards(
    ros, squares_bundle, image_with, monkeypatch, capfd
):
    """After a defect in the package itself, the worker thread continues with the next image."""
    node = YolactNode()
    node.set_parameters([Parameter("model", value=str(squares_bundle))])
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    (pipeline,) = node.pipelines
    mailbox = pipeline.camera.mailbox

    def work_on_one() -> FrameCounts:
        now = node.get_clock().now().to_msg()
        message = message_from_bgr(image_with(GOOD, (64, 64)), Header(stamp=now))
        received = mailbox.counts().received
        mailbox.put(CameraFrame(message, now, time.perf_counter()))
        deadline = time.monotonic() + 20.0
        while (counts := mailbox.counts()).in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        assert counts.received == received + 1
        return counts

    def break_down(*_, **__):
        raise ZeroDivisionError("a defect")

    for defect, outcome in (
        ("publish_stats", {"processed": 1}),
        ("prepare", {"failed": 1}),
        ("publish", {"failed": 1}),
    ):
        before = work_on_one()
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, defect, break_down)
            after = work_on_one()
        for name in ("processed", "failed"):
            assert getattr(after, name) == getattr(before, name) + outcome.get(name, 0)
    assert work_on_one().in_flight == 0
    # Failures of images are logged at most every few seconds.
    assert capfd.readouterr().err.count("ZeroDivisionError: a defect") >= 2
    assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
    node.destroy_node()


def test_two_nodes_serve_a_camera_that_leaves_and_returns_with_another_size(
    start, start_node, client, squares_bundle, image_with
):
    others: list[InstanceArray] = []
    client.node.create_subscription(InstanceArray, "other/instances", others.append, 100)
    names = ("-r", f"__ns:={client.namespace}", "-r", "__node:=other")
    start("yolact_node", ros_arguments=(*names, "-p", f"model:={squares_bundle}"))
    start_node()
    assert client.spin_until(lambda: client.camera.get_subscription_count() == 2)
    for size in ((128, 128), (240, 320)):
        rectangle = (0, 0, size[1] // 2, size[0] // 2)
        image = image_with({"green": rectangle}, size)
        client.spin_until(lambda: False, 0.5)
        result = client.ask(image)
        assert (result.height, result.width) == size
        box = result.instances[0]
        assert (box.x_min, box.y_min, box.x_max, box.y_max) == pytest.approx(rectangle, abs=1e-3)
        for _ in range(3):  # a node that matches the publisher late misses an image
            if client.spin_until(lambda s=size: s in {(r.height, r.width) for r in others}, 5.0):
                break
            client.ask(image)
        assert any((r.height, r.width) == size for r in others)
        client.node.destroy_publisher(client.camera)
        client.spin_until(lambda: False, 0.2)
        client.camera = client.node.create_publisher(Image, "image", QoSProfile(depth=1))
        assert client.spin_until(lambda: client.camera.get_subscription_count() == 2)


EVERYTHING = QoSProfile(
    depth=1, history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE
)


def camera_that_loses_nothing(client):
    """Create a publisher whose images all reach a node with queue_policy all."""
    camera = client.node.create_publisher(Image, "image", EVERYTHING)
    assert client.spin_until(lambda: camera.get_subscription_count())
    client.spin_until(lambda: False, 0.5)
    return camera


def random_image(draw: random.Random) -> Image:
    """Return an image message whose fields are random and unrelated to each other."""
    encodings = ["bgr8", "rgba8", "mono16", "bayer_rggb8", "yuv422", "nv12", "16UC1", "8UC7", ""]
    message = Image(
        height=draw.choice([0, 1, 7, 64, 2**32 - 1]),
        width=draw.choice([0, 1, 8, 64, 2**32 - 1]),
        step=draw.choice([0, 1, 23, 192, 2**32 - 1]),
        encoding=draw.choice([*encodings, "bgr8\u00e9\n" * 20]),
        is_bigendian=draw.choice([0, 1, 255]),
    )
    message.header.stamp.sec = draw.choice([0, 1, 1700000000, -(2**31), 2**31 - 1])
    message.header.frame_id = draw.choice(["", "camera", "\n" * 99])
    message.data.frombytes(draw.randbytes(draw.choice([0, 1, 64, 192 * 64])))
    return message


def test_a_thousand_malformed_images_are_counted_and_survived(start_node, client, image_with):
    node = start_node(queue_policy="all")
    camera = camera_that_loses_nothing(client)
    draw = random.Random(0)
    for _ in range(1000):
        camera.publish(random_image(draw))
    header = client.send(image_with(GOOD, (128, 128)), camera=camera)
    assert client.spin_until(lambda: any(s.header == header for s in client.stats), 60.0)
    last = client.stats[-1]
    assert last.header == header and last.received == 1001
    assert last.processed + last.failed == 1001 and last.failed > 900
    (result,) = (r for r in client.results if r.header == header)
    assert [i.class_name for i in result.instances] == ["red"]
    assert "Traceback" not in node.output and "consecutive" not in node.output
    assert len(node.lines) < 50, "errors are logged every few seconds, not for every image"


@pytest.mark.skipif(not memory_mb(), reason="how much memory a process holds is not known here")
def test_memory_does_not_grow_with_the_images(start_node, client):
    """This sends a few hundred images; `soak` is for more."""
    node = start_node(queue_policy="all")
    camera = camera_that_loses_nothing(client)
    image = np.zeros((320, 320, 3), np.uint8)

    def play(count: int) -> float:
        for number in range(count):
            header = client.send(image, camera=camera)
            if number % 25 == 24:  # as many as the listener holds without losing statistics
                assert client.spin_until(
                    lambda h=header: client.stats and client.stats[-1].header == h, 60.0
                )
        return memory_mb(node.process.pid)

    before = play(100)
    after = play(300)
    assert client.stats[-1].processed == 400
    assert after - before < 0.2 * 300 * image.nbytes / 1e6  # MB of their messages


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_under_the_log_does_not_stop_the_node(
    client, squares_bundle, image_with, tmp_path
):
    program = Path(get_package_prefix("yolact_ros"), "lib", "yolact_ros", "yolact_node")
    words = ["--ros-args", "-r", f"__ns:={client.namespace}", "-p", f"model:={squares_bundle}"]
    with open("/dev/full", "w") as full:
        node = subprocess.Popen(
            [sys.executable, str(program), *words],
            stdout=full,
            stderr=full,
            env={**os.environ, "ROS_LOG_DIR": str(tmp_path)},
        )
    try:
        client.connect()
        bad = np.zeros((8, 8, 2), np.uint8)
        for _ in range(5):
            client.send(bad, "16UC1")  # is logged
            client.spin_until(lambda: False, 0.05)
        assert [i.class_name for i in client.ask(image_with(GOOD, (128, 128))).instances] == [
            "red"
        ]
        node.send_signal(signal.SIGINT)
        assert node.wait(20.0) == 0
    finally:
        node.kill()
        node.wait()


def test_a_signal_ends_the_node_while_an_image_takes_very_long(
    start_node, client, slow_bundle, image_with
):
    node = start_node(model=slow_bundle)
    good, slow = image_with(GOOD, (128, 128)), image_with(BAD, (128, 128))
    client.ask(good)
    for _ in range(5):  # best effort: an image may be lost
        client.send(slow)
        client.spin_until(lambda: False, 0.1)
        header = client.send(good)
        if not client.spin_until(lambda h=header: any(r.header == h for r in client.results), 1.0):
            break
    status, seconds = node.end()
    assert status == 0 and seconds < END_S
    assert "Exiting without waiting" in node.output and "Traceback" not in node.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_managed_node_that_is_idle_or_waits_for_an_image(
    start, client, manager, slow_bundle, image_with, number
):
    names = ("-r", f"__ns:={client.namespace}", "-p", "autostart:=false", "-p", "threads:=1")
    node = start("yolact_node", ros_arguments=(*names, "-p", f"model:={slow_bundle}"))
    manager.wait()
    assert manager.set(Transition.TRANSITION_CONFIGURE)
    if number == signal.SIGTERM:  # the other one finds it inactive
        assert manager.set(Transition.TRANSITION_ACTIVATE)
        client.connect()
        slow = image_with(BAD, (128, 128))
        for _ in range(5):  # best effort: an image may be lost
            client.send(slow)
            client.spin_until(lambda: False, 0.1)
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        manager.change.call_async(request)
        client.spin_until(lambda: False, 0.5)  # meanwhile the node answers nothing
    status, seconds = node.end(number)
    assert status == 0 and seconds < END_S
    assert "Traceback" not in node.output and "FATAL" not in node.output


def test_a_node_that_opens_its_model_responds_reports_the_duration_and_can_be_ended(
    start, client, manager, slow_to_open_bundle
):
    names = ("-r", f"__ns:={client.namespace}", "-p", "threads:=1")
    node = start("yolact_node", ros_arguments=(*names, "-p", f"model:={slow_to_open_bundle}"))
    manager.wait()
    assert client.spin_until(lambda: manager.state() == State.TRANSITION_STATE_CONFIGURING)
    node.wait_for("Opening the model has taken 2 s so far")
    status, seconds = node.end(signal.SIGTERM)
    assert status == 0 and seconds < END_S
    assert "Did not configure: The node was asked to end" in node.output
    assert "Traceback" not in node.output and "FATAL" not in node.output
