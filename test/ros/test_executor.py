"""The executor survives messages and responses that the middleware cannot pass on."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.service import Service
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from yolact_ros.ros import process
from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.node import SUCCESS, YolactNode

EVERYTHING = QoSProfile(
    depth=1, history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE
)
GOOD = {"red": (32, 16, 96, 80)}


@pytest.mark.parametrize("name", ["image", "depth/image", "camera_info"])
def test_a_message_that_does_not_fit_into_memory_is_lost_and_the_next_one_is_received(
    ros, squares_bundle, image_with, monkeypatch, capfd, name
):
    node = YolactNode()
    node.set_parameters([Parameter("model", value=str(squares_bundle))])
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    (pipeline,) = node.pipelines
    image = message_from_bgr(image_with(GOOD, (64, 64)), Header())
    kind = CameraInfo if name == "camera_info" else Image
    camera = node.create_publisher(kind, name, EVERYTHING)
    node.create_subscription(PointCloud2, "yolact/points", lambda points: None, 1)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    take, left, taken = Executor._take_subscription, [1], []

    def take_without_memory(self, subscription):
        if subscription.topic_name.endswith(f"/{name}"):
            if left and left.pop():
                raise MemoryError
            taken.append(subscription)
        return take(self, subscription)

    monkeypatch.setattr(Executor, "_take_subscription", take_without_memory)
    events = SimpleNamespace(put=lambda event: pytest.fail(event))
    spinner = threading.Thread(target=process._spin, args=(executor, node, events), daemon=True)
    spinner.start()
    deadline = time.monotonic() + 30.0
    while not taken or (name == "image" and not pipeline.camera.mailbox.counts().processed):
        assert time.monotonic() < deadline
        camera.publish(kind() if kind is CameraInfo else image)
        time.sleep(0.2)
    assert pipeline.camera.mailbox.counts().failed == (name == "image")
    assert f"Out of memory while receiving a message on /{name}." in capfd.readouterr().err
    executor.shutdown(5.0)
    spinner.join(5.0)
    assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
    node.destroy_node()


def test_an_image_that_is_destroyed_before_it_is_taken_does_not_end_the_executor(
    ros, squares_bundle, image_with, monkeypatch
):
    """Humble's executor raises if another thread has just unsubscribed; later ones do not."""
    node = YolactNode()
    node.set_parameters([Parameter("model", value=str(squares_bundle))])
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    (pipeline,) = node.pipelines
    image = message_from_bgr(image_with(GOOD, (64, 64)), Header())
    camera = node.create_publisher(Image, "image", EVERYTHING)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    take, left = Executor._take_subscription, [1]

    def take_too_late(self, subscription):
        if left and left.pop():
            pipeline.camera.unsubscribe()
            pipeline.camera.subscribe()
            raise InvalidHandle
        return take(self, subscription)

    monkeypatch.setattr(Executor, "_take_subscription", take_too_late)
    events = SimpleNamespace(put=lambda event: pytest.fail(event), ending=False)
    spinner = threading.Thread(target=process._spin, args=(executor, node, events), daemon=True)
    spinner.start()
    deadline = time.monotonic() + 30.0
    while not pipeline.camera.mailbox.counts().processed:
        assert time.monotonic() < deadline
        camera.publish(image)
        time.sleep(0.2)
    assert not left
    executor.shutdown(5.0)
    spinner.join(5.0)
    assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
    node.destroy_node()


def test_a_response_that_cannot_be_sent_does_not_end_the_executor(ros, client, monkeypatch):
    """Humble's rclpy raises if the client has gone or is not discovered yet."""
    node = YolactNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    send, left = Service.send_response, [1]

    def send_too_late(self, response, header):
        if left and left.pop():
            raise RuntimeError("failed to send response: client will not receive response")
        send(self, response, header)

    monkeypatch.setattr(Service, "send_response", send_too_late)
    events = SimpleNamespace(put=lambda event: pytest.fail(event), ending=False)
    spinner = threading.Thread(target=process._spin, args=(executor, node, events), daemon=True)
    spinner.start()
    service = client.node.create_client(GetState, "/yolact/get_state")
    assert client.spin_until(service.service_is_ready, 20.0)
    state = client.call(service, GetState.Request()).current_state
    assert state.id == State.PRIMARY_STATE_UNCONFIGURED
    assert not left
    executor.shutdown(5.0)
    spinner.join(5.0)
    node.destroy_node()


def test_the_process_keeps_freed_memory_and_switches_threads_early(monkeypatch):
    """Both are settings of the whole process, so importing the node's modules changes neither."""
    monkeypatch.setattr(process, "keep_freed_memory", keep := Mock())
    monkeypatch.setattr(process, "Events", lambda: SimpleNamespace(put=None, ending=False))
    monkeypatch.setattr(process, "init_ros", Mock(side_effect=InterruptedError))
    before = sys.getswitchinterval()
    try:
        with pytest.raises(InterruptedError):
            process.main([])
        keep.assert_called_once()
        assert sys.getswitchinterval() < before
    finally:
        sys.setswitchinterval(before)
