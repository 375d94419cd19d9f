"""The node's transitions are requested through its lifecycle services from another process."""

from __future__ import annotations

import gc
import random
import threading
import time

import pytest

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from yolact_ros.errors import BackendError
from yolact_ros.ros import process
from yolact_ros.ros.inputs.camera import CameraFrame, CameraInput
from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.node import ERROR, FAILURE, SUCCESS, YolactNode
from yolact_ros.runtime import segmenter as segmenter_module

RECTANGLES = {"blue": (32, 16, 96, 80)}


def test_a_manager_controls_the_node_through_all_states(
    start, client, manager, squares_bundle, image_with, tmp_path
):
    node = start(
        "yolact_node",
        ros_arguments=(
            *("-r", f"__ns:={client.namespace}", "-p", "autostart:=false"),
            *("-p", f"model:={tmp_path}", "-p", "threads:=1"),
        ),
    )
    manager.wait()
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED

    # A failed transition says why, and the node stays for another attempt.
    assert not manager.set(Transition.TRANSITION_CONFIGURE)
    assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert client.spin_until(lambda: str(tmp_path) in node.output)
    assert "Could not configure" in node.output and "Traceback" not in node.output
    assert manager.set_parameter("model", str(squares_bundle)).successful

    image = image_with(RECTANGLES, (256, 256))
    since = []
    for _ in range(2):
        assert manager.set(Transition.TRANSITION_CONFIGURE)
        assert manager.state() == State.PRIMARY_STATE_INACTIVE
        assert not client.camera.get_subscription_count(), "it does not take images yet"
        refused = manager.set_parameter("model", str(tmp_path))
        assert not refused.successful and "cleanup" in refused.reason
        refused = manager.set_parameter("warp", "dis")
        assert not refused.successful and "has no warp 'dis'" in refused.reason

        for _ in range(2):
            assert manager.set(Transition.TRANSITION_ACTIVATE)
            assert manager.state() == State.PRIMARY_STATE_ACTIVE
            client.connect()
            client.stats.clear()
            assert [i.class_name for i in client.ask(image).instances] == ["blue"]
            assert client.spin_until(lambda: client.stats)
            since.append((client.stats[-1].counting_since.sec, client.stats[-1].received))
            assert manager.set(Transition.TRANSITION_DEACTIVATE)
            assert client.spin_until(lambda: not client.camera.get_subscription_count())

        assert manager.set(Transition.TRANSITION_CLEANUP)
        assert manager.state() == State.PRIMARY_STATE_UNCONFIGURED
        topic = f"{client.namespace}/yolact/instances"
        assert client.spin_until(lambda t=topic: not client.node.count_publishers(t))

    (first, one), (again, more), (new, afresh), _ = since
    assert first == again and more > one, "activating again continues counting"
    assert new >= first and afresh < more, "configuring begins at 0, and says when"

    assert not manager.set(Transition.TRANSITION_ACTIVATE), "there is nothing to activate"
    assert manager.set(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert node.wait(10.0) == 0, "a finalized node has nothing left to do"
    assert "Traceback" not in node.output


def test_a_node_with_autostart_can_be_shut_down_while_it_is_active(
    start_node, client, manager, image_with
):
    node = start_node()
    manager.wait()
    assert manager.state() == State.PRIMARY_STATE_ACTIVE
    client.ask(image_with(RECTANGLES, (256, 256)))
    assert manager.set(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert node.wait(10.0) == 0
    assert "Traceback" not in node.output


def test_cleanup_frees_the_model_and_its_thread(ros, squares_bundle):
    onnxruntime = pytest.importorskip("onnxruntime")

    def sessions() -> int:
        gc.collect()
        kind = onnxruntime.InferenceSession
        return sum(type(found) is kind for found in gc.get_objects())

    def workers() -> int:
        return sum(thread.name == "worker" for thread in threading.enumerate())

    before = sessions()
    node = YolactNode()
    node.set_parameters([Parameter("model", value=str(squares_bundle))])
    for _ in range(2):
        assert node.trigger_configure() == SUCCESS
        assert sessions() == before + 1 and workers() == 1
        assert node.trigger_activate() == SUCCESS
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
        assert sessions() == before and workers() == 0
    node.destroy_node()


def test_the_build_of_an_engine_shows_on_diagnostics_and_stops_with_the_node(
    ros, squares_bundle, monkeypatch
):
    progress = "building engine 2 of 3 (non_keyframe): 40 %, about 90 s left"
    told_to_end, stopped = threading.Event(), threading.Event()

    def build(path, config, report):
        while report(progress):
            time.sleep(0.01)
        stopped.set()
        raise BackendError("The build of the engine was stopped.")

    monkeypatch.setattr(segmenter_module, "open_backend", build)
    node = YolactNode(interrupted=told_to_end.is_set)
    node.set_parameters([Parameter("model", value=str(squares_bundle))])
    listener = rclpy.create_node("listener")
    seen = []
    listener.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.add_node(listener)
    outcome = []
    configuring = threading.Thread(target=lambda: outcome.append(node.trigger_configure()))
    configuring.start()
    deadline = time.monotonic() + 30.0
    shown = f"configuring: {progress}"
    while not any(s.message == shown for m in seen for s in m.status):
        assert time.monotonic() < deadline
        executor.spin_once(timeout_sec=0.1)
    told_to_end.set()
    configuring.join(20.0)
    assert stopped.is_set() and outcome == [FAILURE]
    assert node.diagnostics.state == "unconfigured"
    executor.shutdown()
    listener.destroy_node()
    node.destroy_node()


def test_a_transition_that_fails_says_why_and_the_node_recovers(
    ros, squares_bundle, monkeypatch, capfd
):
    """rclpy would silently ignore a defect in the package's own code."""

    def break_down(self):
        raise ZeroDivisionError("a defect")

    node = YolactNode()
    node.set_parameters([Parameter("model", value=str(squares_bundle))])
    assert node.trigger_configure() == SUCCESS
    with monkeypatch.context() as patch:
        patch.setattr(CameraInput, "subscribe", break_down)
        assert node.trigger_activate() == ERROR
    assert "ZeroDivisionError: a defect" in capfd.readouterr().err
    assert node.trigger_configure() == SUCCESS, "error processing led to unconfigured"
    assert node.trigger_activate() == SUCCESS
    assert node.trigger_shutdown() == SUCCESS
    node.destroy_node()


def test_transitions_of_two_threads_leave_the_node_in_a_consistent_state(
    ros, squares_bundle, image_with
):
    node = YolactNode()
    node.set_parameters([Parameter("model", value=str(squares_bundle))])

    def state() -> int:
        return node._state_machine.current_state[0]

    def lead(seed: int) -> None:
        draw = random.Random(seed)
        names = ["configure", "activate", "deactivate", "cleanup"]
        for _ in range(100):
            getattr(node, f"trigger_{draw.choice(names)}")()
            time.sleep(draw.uniform(0.0, 0.01))

    leaders = [threading.Thread(target=lead, args=(seed,)) for seed in (1, 2)]
    for leader in leaders:
        leader.start()
    for leader in leaders:
        leader.join(120.0)
        assert not leader.is_alive()
    names = {
        State.PRIMARY_STATE_UNCONFIGURED: ["configure", "activate"],
        State.PRIMARY_STATE_INACTIVE: ["activate"],
        State.PRIMARY_STATE_ACTIVE: [],
    }[state()]
    workers = sum(thread.name == "worker" for thread in threading.enumerate())
    assert workers == len(node.pipelines) == (len(names) < 2)
    assert node.is_active == (not names)
    for name in names:
        assert getattr(node, f"trigger_{name}")() == SUCCESS
    (pipeline,) = node.pipelines
    now = node.get_clock().now().to_msg()
    message = message_from_bgr(image_with(RECTANGLES, (64, 64)), Header(stamp=now))
    pipeline.camera.mailbox.put(CameraFrame(message, now, time.perf_counter()))
    deadline = time.monotonic() + 20.0
    while not pipeline.camera.mailbox.counts().processed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert node.trigger_shutdown() == SUCCESS
    node.destroy_node()


def test_a_node_with_autostart_continues_if_a_manager_was_faster(ros, squares_bundle):
    node = YolactNode()
    node.set_parameters([Parameter("model", value=str(squares_bundle))])
    assert node.trigger_configure() == SUCCESS
    assert process._start(node), "it is not the node that failed"
    assert node.trigger_cleanup() == SUCCESS
    node.set_parameters([Parameter("model", value="nonsense")])
    assert not process._start(node)
    node.destroy_node()


def test_a_transition_that_fails_at_the_start_is_named_and_ends_the_process(
    start, client, squares_bundle
):
    """Only `activate` detects an override of a QoS that does not exist."""
    topic = f"{client.namespace}/image"
    node = start(
        "yolact_node",
        ros_arguments=(
            *("-r", f"__ns:={client.namespace}", "-p", f"model:={squares_bundle}"),
            *("-p", f"qos_overrides.{topic}.subscription.reliability:=perhaps"),
        ),
    )
    assert node.wait() == 1
    assert "perhaps" in node.output and "activate" in node.output
