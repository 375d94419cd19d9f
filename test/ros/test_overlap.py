"""While a device computes, the worker prepares the next image and publishes the last one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("onnxruntime")

from rclpy.parameter import Parameter
from squares import FINISHED_GRAPH, write_squares
from std_msgs.msg import Header

from yolact_ros.errors import BackendError
from yolact_ros.ros.inputs.camera import CameraFrame
from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.node import SUCCESS, YolactNode
from yolact_ros.ros.pipeline import Pipeline
from yolact_ros.runtime import segmenter as segmenter_module
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_ros.runtime.bundle import Bundle
from yolact_ros.runtime.stream import Stream

IMAGES = 8


class Device(OnnxRuntimeBackend):
    """ONNX Runtime in a thread of its own, as a GPU computes while the CPU goes on."""

    def __init__(self, bundle, broken=()):
        super().__init__(bundle, threads=1)
        self.on_gpu = True
        self._thread = ThreadPoolExecutor(1)
        self._broken = broken
        self.runs = 0

    def submit(self, graph, inputs, *, keep=()):
        self.runs += 1
        inputs = {name: value.copy() for name, value in inputs.items()}
        return Submitted(self._thread.submit(self._compute, graph, inputs, self.runs))

    def _compute(self, graph, inputs, number):
        if number in self._broken:
            raise BackendError("The device is gone.")
        return super().run(graph, inputs)

    def close(self):
        self._thread.shutdown()
        super().close()


class Submitted:
    seconds = 0.001

    def __init__(self, future):
        self._future = future

    def fetch(self):
        return self._future.result()


@pytest.fixture
def client(ros, client_in):
    """Who hears what a node without a namespace publishes."""
    made = client_in("")
    yield made
    made.node.destroy_node()


@pytest.fixture
def node_on(tmp_path, monkeypatch, client):
    """Makes an active node on a device, in this process, whose images are put by hand."""
    nodes = []

    def make(*, broken=(), **parameters):
        folder = write_squares(tmp_path / "squares", FINISHED_GRAPH, form="with_nms")
        bundle = Bundle.open(folder)
        backend = Device(bundle, broken)
        monkeypatch.setattr(
            segmenter_module, "open_backend", lambda *_: (backend, bundle.description)
        )
        node = YolactNode()
        nodes.append(node)
        values = {"model": str(folder), "queue_policy": "all", "queue_size": 100} | parameters
        node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
        client.connect()
        return node

    yield make
    for node in nodes:
        assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
        node.destroy_node()


@pytest.fixture
def put(image_with):
    """Puts an image with a blue square at column `x` into a node's mailbox; returns its header."""

    def put_image(node, number, x=0):
        header = Header(frame_id="camera")
        header.stamp.sec, header.stamp.nanosec = 1700000000, 1000 + number
        image = image_with({"blue": (x, 16, x + 32, 48)}, (64, 64))
        frame = CameraFrame(message_from_bgr(image, header), header.stamp, time.perf_counter())
        node.pipelines[0].camera.mailbox.put(frame)
        return header

    return put_image


def journal(monkeypatch):
    """Steps of the worker with the number of their image, as they begin."""
    steps = []

    def note(step, number_of, original, self, argument, *others, **options):
        steps.append((step, number_of(argument)))
        return original(self, argument, *others, **options)

    by_stamp = {
        "submit": (Stream, lambda frame: frame.source.nanosec - 1000),
        "fetch": (Stream, lambda frame: frame.source.nanosec - 1000),
        "prepare": (Pipeline, lambda frame: frame.message.header.stamp.nanosec - 1000),
        "publish": (Pipeline, lambda work: work.frame.source.nanosec - 1000),
    }
    for step, (owner, number_of) in by_stamp.items():
        original = getattr(owner, step)
        monkeypatch.setattr(
            owner,
            step,
            lambda *a, s=step, n=number_of, o=original, **k: note(s, n, o, *a, **k),
        )
    return steps


def test_the_next_image_is_prepared_and_the_last_one_published_while_the_device_computes(
    node_on, put, client, monkeypatch
):
    node = node_on()
    steps = journal(monkeypatch)
    with node._inbox._changed:  # all are there before the first is taken
        headers = [put(node, number, x=4 * number) for number in range(IMAGES)]
    assert client.spin_until(lambda: len(client.stats) == IMAGES)
    expected = [("prepare", 0), ("submit", 0)]
    for n in range(1, IMAGES):
        expected += [("prepare", n), ("fetch", n - 1), ("submit", n), ("publish", n - 1)]
    expected += [("fetch", IMAGES - 1), ("publish", IMAGES - 1)]
    assert steps == expected
    assert [result.header for result in client.results] == headers
    for number, result in enumerate(client.results):
        (instance,) = result.instances
        assert instance.x_min == 4 * number, "it is the result of its own image"
        assert result.keyframe_stamp == headers[number].stamp
    last = client.stats[-1]
    assert (last.received, last.processed, last.failed, last.dropped) == (IMAGES, IMAGES, 0, 0)
    assert all(s.wait_ms >= 0 and s.inference_ms == 1 for s in client.stats)


def test_a_run_that_fails_costs_its_own_image_alone(node_on, put, client):
    node = node_on(broken=(2 + 3,))  # two runs warm up
    with node._inbox._changed:
        headers = [put(node, number) for number in range(IMAGES)]
    assert client.spin_until(lambda: len(client.stats) == IMAGES - 1)
    assert [result.header for result in client.results] == headers[:2] + headers[3:]
    assert (client.stats[-1].processed, client.stats[-1].failed) == (IMAGES - 1, 1)


def test_propagation_needs_the_image_before_so_nothing_overlaps(node_on, put, client, monkeypatch):
    node = node_on(propagated_frames=1, keyframe_interval=2)
    steps = journal(monkeypatch)
    with node._inbox._changed:
        for number in range(4):
            put(node, number)
    assert client.spin_until(lambda: len(client.stats) == 4)
    names = ["prepare", "submit", "fetch", "publish"]
    assert steps == [(name, number) for number in range(4) for name in names]
    assert [stats.frame_type for stats in client.stats] == [0, 1, 0, 1]


def test_the_next_image_is_taken_as_late_as_it_can_be_prepared(node_on, put, client, monkeypatch):
    node = node_on(queue_policy="latest")
    worker = node._worker
    waited, newest = [], []

    def meanwhile(seconds):
        if seconds > 1.0 and not newest:
            waited.append(seconds)
            newest.append(put(node, 2))

    worker._runs_s["detect"] = (100.0, 200.0)  # two runs, of which the shorter one counts
    monkeypatch.setattr(time, "sleep", meanwhile)
    with node._inbox._changed:
        first = put(node, 0)
    assert client.spin_until(lambda: waited)
    worker._runs_s["detect"] = (0.0, 0.0)
    assert 99.0 < waited[0] <= 100.0
    assert client.spin_until(lambda: len(client.stats) == 2)
    assert [result.header for result in client.results] == [first, newest[0]]


def test_deactivation_publishes_what_the_device_has(node_on, put, client):
    node = node_on()
    header = put(node, 0)
    assert node.trigger_deactivate() == SUCCESS
    counts = node.pipelines[0].camera.mailbox.counts()
    assert counts.in_flight == 0 and counts.processed + counts.dropped == 1
    if counts.processed:
        assert client.spin_until(lambda: client.results)
        assert client.results[0].header == header
    assert node.trigger_activate() == SUCCESS
