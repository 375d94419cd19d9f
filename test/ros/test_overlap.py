"""While a device computes, the worker prepares the next image and publishes the previous one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("onnxruntime")

from rclpy.parameter import Parameter
from squares import FINISHED_GRAPH, KEYFRAME_GRAPHS, write_squares
from std_msgs.msg import Header

from yolact_ros.errors import BackendError
from yolact_ros.msg import InstanceArray
from yolact_ros.ros import worker as worker_module
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
    """Runs ONNX Runtime in its own thread, so that the CPU continues as it does beside a GPU."""

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
    """Create a client of what a node without a namespace publishes."""
    made = client_in("")
    yield made
    made.node.destroy_node()


@pytest.fixture
def node_on(tmp_path, monkeypatch, client):
    """Create active nodes on a device, in this process; tests put their images by hand."""
    nodes = []

    def make(*, graph=FINISHED_GRAPH, broken=(), batch=1, on_gpu=True, **parameters):
        folder = write_squares(tmp_path / "squares", graph, form="with_nms", batch=batch)
        bundle = Bundle.open(folder)
        backend = Device(bundle, broken) if on_gpu else OnnxRuntimeBackend(bundle, threads=1)
        monkeypatch.setattr(
            segmenter_module, "open_backend", lambda *_: (backend, bundle.description)
        )
        node = YolactNode()
        nodes.append(node)
        values = {"model": str(folder), "queue_policy": "all", "queue_size": 100} | parameters
        node.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
        if "cameras" not in parameters:
            client.connect()
        return node

    yield make
    for node in nodes:
        assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS
        node.destroy_node()


def header_of(number):
    header = Header(frame_id="camera")
    header.stamp.sec, header.stamp.nanosec = 1700000000, 1000 + number
    return header


@pytest.fixture
def put(image_with):
    """Put an image with a blue square at column `x` into a node's mailbox; return its header."""

    def put_image(node, number, x=0, camera=0):
        header = header_of(number)
        image = image_with({"blue": (x, 16, x + 32, 48)}, (64, 64))
        frame = CameraFrame(message_from_bgr(image, header), header.stamp, time.perf_counter())
        node.pipelines[camera].camera.mailbox.put(frame)
        return header

    return put_image


def journal(monkeypatch):
    """Record the worker's steps, with the number of their image, as they begin."""
    steps = []

    def note(step, number_of, original, self, argument, *others, **options):
        steps.append((step, number_of(argument)))
        return original(self, argument, *others, **options)

    by_stamp = {
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
    submit = worker_module.submit_together

    def note_submitted(frames):
        steps.extend(("submit", frame.source.nanosec - 1000) for _, frame in frames)
        submit(frames)

    monkeypatch.setattr(worker_module, "submit_together", note_submitted)
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


def test_a_failed_run_costs_only_its_own_image(node_on, put, client):
    node = node_on(broken=(2 + 3,))  # two runs warm up
    with node._inbox._changed:
        headers = [put(node, number) for number in range(IMAGES)]
    assert client.spin_until(lambda: len(client.stats) == IMAGES - 1)
    assert [result.header for result in client.results] == headers[:2] + headers[3:]
    assert (client.stats[-1].processed, client.stats[-1].failed) == (IMAGES - 1, 1)


def test_propagation_depends_on_the_previous_image_so_nothing_overlaps(
    node_on, put, client, monkeypatch
):
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


@pytest.fixture
def results_of(client):
    """Collect the results of each camera of a node, once all are connected."""

    def subscribe(node, names):
        results = {name: [] for name in names}
        for name in names:
            topic = f"yolact/{name}/instances"
            client.node.create_subscription(InstanceArray, topic, results[name].append, 20)
            publisher = node.pipelines[names.index(name)].outputs._publishers
            assert client.spin_until(
                lambda p=publisher: next(iter(p.values())).get_subscription_count()
            )
            assert client.spin_until(lambda t=topic: client.node.count_publishers(t))
        client.spin_until(lambda: False, 0.5)
        return results

    return subscribe


either = pytest.mark.parametrize("on_gpu", [True, False], ids=["overlapping", "one after another"])


@either
def test_images_of_several_cameras_share_a_run(
    node_on, put, client, results_of, monkeypatch, on_gpu
):
    names = ["left", "middle", "right"]
    node = node_on(batch=2, on_gpu=on_gpu, cameras=names, propagated_frames=0)
    results = results_of(node, names)
    runs = []
    original = OnnxRuntimeBackend.run
    monkeypatch.setattr(
        OnnxRuntimeBackend,
        "run",
        lambda self, graph, inputs, **kept: (
            runs.append(inputs["image"].shape) or original(self, graph, inputs, **kept)
        ),
    )
    expected = {name: [] for name in names}
    with node._inbox._changed:
        for number in range(4):
            for camera, name in enumerate(names):
                header = put(node, 10 * camera + number, x=8 * camera + number, camera=camera)
                expected[name].append((header, 8 * camera + number))
        put(node, 40, x=30, camera=1)
    expected["middle"].append((header_of(40), 30))
    assert client.spin_until(lambda: sum(map(len, results.values())) == 13)
    for name in names:
        found = [(r.header, r.instances[0].x_min) for r in results[name]]
        assert found == expected[name], "each camera has its own results in order"
    assert len(runs) == 7 and set(runs) == {(2, 64, 64, 3)}, "thirteen images, the last one twice"
    counts = [pipeline.camera.mailbox.counts() for pipeline in node.pipelines]
    assert [(c.processed, c.in_flight) for c in counts] == [(4, 0), (5, 0), (4, 0)]


@either
def test_cameras_that_share_runs_have_their_own_keyframes(
    node_on, put, client, results_of, monkeypatch, on_gpu
):
    """Between keyframes, boxes are those of the keyframe, so mixed-up cameras would show."""
    names = ["left", "middle", "right"]
    node = node_on(
        graph=KEYFRAME_GRAPHS,
        batch=2,
        on_gpu=on_gpu,
        cameras=names,
        propagated_frames=0,
        keyframe_interval=3,
        warp="none",
        change_threshold=1.0,
    )
    results, shared = results_of(node, names), []
    submit = worker_module.submit_together
    monkeypatch.setattr(
        worker_module,
        "submit_together",
        lambda frames: (submit(frames), shared.append([f.step.graph for _, f in frames])),
    )
    with node._inbox._changed:
        for number in range(8):
            for camera in range(3):
                put(node, 10 * camera + number, x=8 * camera + number, camera=camera)
    assert client.spin_until(lambda: sum(map(len, results.values())) == 24)
    for camera, name in enumerate(names):
        edges = [result.instances[0].x_min for result in results[name]]
        assert edges == [8 * camera + keyframe for keyframe in (0, 0, 0, 3, 3, 3, 6, 6)]
        stamps = [result.keyframe_stamp.nanosec - 1000 - 10 * camera for result in results[name]]
        assert stamps == [0, 0, 0, 3, 3, 3, 6, 6]
    whole, partial = "keyframe", "non_keyframe_flow"
    assert all(graphs in shared for graphs in ([whole] * 2, [partial] * 2, [whole, partial]))


def test_a_failed_run_of_several_cameras_costs_an_image_of_each(node_on, put):
    node = node_on(batch=2, broken=(2 + 1,), cameras=["left", "right"])  # two runs warm up
    with node._inbox._changed:
        for camera in (0, 1, 0, 1):
            put(node, 0, camera=camera)
    boxes = [pipeline.camera.mailbox for pipeline in node.pipelines]
    deadline = time.monotonic() + 20.0
    while any(box.counts().in_flight for box in boxes) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [(b.counts().processed, b.counts().failed) for b in boxes] == [(1, 1), (1, 1)]
