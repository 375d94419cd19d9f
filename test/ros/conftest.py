"""Provide a tiny bundle that finds coloured rectangles, and run the package's programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from squares import (
    PIXELS,
    SQUARES_GRAPH,
    graph_that_looks_at_its_first_sample,
    slow_graph,
    write_squares,
)

# Everything here talks over real DDS; this keeps it on this machine and away from other sessions.
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
DOMAIN_ID = int(os.environ["ROS_DOMAIN_ID"])
REPOSITORY = Path(__file__).resolve().parent.parent.parent
for variable in ("FASTRTPS", "FASTDDS"):  # of Fast DDS 2 and 3
    profile = str(REPOSITORY / "config" / "fastdds_shm.xml")
    os.environ[f"{variable}_DEFAULT_PROFILES_FILE"] = profile


def heed_signals() -> None:
    """Restore signals that `nohup` or a shell's background job made the test ignore."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session")
def squares_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a real bundle whose network finds one rectangle of each of three colours."""
    return write_squares(tmp_path_factory.mktemp("models") / "squares", SQUARES_GRAPH)


@pytest.fixture(scope="session")
def fragile_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a variant whose network fails on an image whose first sample is 255.

    It looks the sample up in a table of 255 entries.
    """
    graph = graph_that_looks_at_its_first_sample(
        """table_shape = Constant <value_ints = [255]> ()
    table = ConstantOfShape <value = float[1] {0}> (table_shape)
    nothing = Gather (table, first_sample)"""
    )
    return write_squares(tmp_path_factory.mktemp("models") / "fragile", graph)


@pytest.fixture(scope="session")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a variant that takes many seconds for an image whose first sample is 255."""
    graph = slow_graph("is_slow = Div (first_sample, largest)")
    return write_squares(tmp_path_factory.mktemp("models") / "slow", graph)


@pytest.fixture(scope="session")
def slow_to_open_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a variant that takes many seconds for the black warm-up image."""
    graph = slow_graph(
        """at_most_one = Min (first_sample, one_int)
    is_slow = Sub (one_int, at_most_one)"""
    )
    return write_squares(tmp_path_factory.mktemp("models") / "slow_to_open", graph)


@pytest.fixture(scope="session")
def image_with() -> Callable[..., np.ndarray]:
    """Return a grey BGR image with rectangles: class name to x1 y1 x2 y2, half-open, in pixels."""

    def make(
        rectangles: dict[str, tuple[int, int, int, int]], size: tuple[int, int]
    ) -> np.ndarray:
        image = np.full((*size, 3), 90, np.uint8)
        for name, (x1, y1, x2, y2) in rectangles.items():
            image[y1:y2, x1:x2] = PIXELS[name]
        return image

    return make


class Program:
    """Runs a program of the package in its own process and collects its output."""

    def __init__(self, name: str, *arguments: str, ros_arguments: tuple[str, ...] = ()) -> None:
        from ament_index_python.packages import get_package_prefix

        path = Path(get_package_prefix("yolact_ros"), "lib", "yolact_ros", name)
        words = ["--ros-args", *ros_arguments] if ros_arguments else []
        self.process = subprocess.Popen(
            [sys.executable, str(path), *arguments, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_signals,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until the process ends by itself; return its exit status."""
        status = self.process.wait(timeout)
        self._reader.join(5.0)
        return status

    def end(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Send a signal; return the exit status and the seconds that the process took to end."""
        started = time.monotonic()
        self.process.send_signal(number)
        status = self.wait(20.0)
        return status, time.monotonic() - started

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Wait until the process has written `text`."""
        deadline = time.monotonic() + timeout
        while text not in self.output:
            ended = self.process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"no {text!r} in:\n{self.output}"
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5.0)
        assert not self._reader.is_alive(), "a process that the program started still runs"
        self.process.stdout.close()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Start programs; kill those that still run at the end of the test."""
    programs: list[Program] = []

    def start_program(name: str, *arguments: str, ros_arguments: tuple[str, ...] = ()) -> Program:
        programs.append(Program(name, *arguments, ros_arguments=ros_arguments))
        return programs[-1]

    yield start_program
    for program in programs:
        program.kill()


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    """Initialize ROS for the tests of a module.

    One node lives as long as the context, so the context's DDS participant is destroyed once per
    module: Fast DDS may deadlock when a participant is destroyed while it discovers others.
    """
    rclpy = pytest.importorskip("rclpy")
    rclpy.init(domain_id=DOMAIN_ID)
    keeper = rclpy.create_node(f"keeper_{os.getpid()}", enable_rosout=False)
    yield
    keeper.destroy_node()
    rclpy.shutdown()


class Client:
    """Sends images to a node in a namespace and receives its results, like camera and planner.

    Attributes:
        period_ms: milliseconds from the stamp of each image to that of the next.
        stamp_ms: of the last image.
    """

    def __init__(self, namespace: str) -> None:
        import rclpy
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image

        from yolact_ros.msg import FrameStats, InstanceArray

        self.node = rclpy.create_node("client", namespace=namespace)
        self.namespace = namespace
        self.results: list = []
        self.stats: list = []
        self.period_ms = 1000
        self.stamp_ms = 987
        qos = QoSProfile(depth=100)
        self.camera = self.node.create_publisher(Image, "image", QoSProfile(depth=1))
        self.node.create_subscription(InstanceArray, "yolact/instances", self.results.append, qos)
        self.node.create_subscription(FrameStats, "yolact/stats", self.stats.append, qos)

    def spin_until(self, condition: Callable[[], object], timeout: float = 20.0) -> bool:
        import rclpy

        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.02)
        return bool(condition())

    def connect(self) -> None:
        """Wait until node and client have discovered each other in both directions."""
        topics = [f"{self.namespace}/yolact/instances", f"{self.namespace}/yolact/stats"]
        assert self.spin_until(
            lambda: (
                self.camera.get_subscription_count()
                and all(self.node.count_publishers(topic) for topic in topics)
            ),
            timeout=60.0,
        ), "the node did not appear"
        self.spin_until(lambda: False, timeout=0.5)  # the node has to find us, too

    def send(
        self, image: np.ndarray, encoding: str = "bgr8", *, camera=None, seconds: int | None = None
    ):
        """Publish an image, (H, W, C) uint8; returns its header.

        Args:
            image: its pixels.
            encoding: of the message.
            camera: the publisher; the client's own on `image` if it is not given.
            seconds: of the stamp; it is `period_ms` later than the last one if not given.
        """
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header

        self.stamp_ms = self.stamp_ms + self.period_ms if seconds is None else 1000 * seconds + 987
        header = Header(frame_id="front_optical_frame")
        header.stamp.sec = 1700000000 + self.stamp_ms // 1000
        header.stamp.nanosec = self.stamp_ms % 1000 * 1_000_000 + 654321
        height, width, channels = image.shape
        message = Image(header=header, height=height, width=width, encoding=encoding)
        message.step = width * channels
        message.data.frombytes(np.ascontiguousarray(image).tobytes())
        (camera or self.camera).publish(message)
        return header

    def ask(self, image: np.ndarray, encoding: str = "bgr8"):
        """Publish an image until its result arrives, because images may be lost on the way."""
        for _ in range(5):
            header = self.send(image, encoding)
            if self.spin_until(lambda h=header: any(r.header == h for r in self.results), 4.0):
                return next(r for r in self.results if r.header == header)
        raise AssertionError("the node did not answer")

    def set_parameters(self, *parameters):
        """Set parameters of the node atomically, as `ros2 param set` does; return the response."""
        # Humble has the service, but not rclpy's client of it.
        from rcl_interfaces.srv import SetParametersAtomically

        name = f"{self.namespace}/yolact/set_parameters_atomically"
        service = self.node.create_client(SetParametersAtomically, name)
        assert self.spin_until(service.service_is_ready, 20.0)
        messages = [parameter.to_parameter_msg() for parameter in parameters]
        answer = self.call(service, SetParametersAtomically.Request(parameters=messages))
        self.node.destroy_client(service)
        return answer.result

    def call(self, service, request):
        """Call an idempotent service, again if the response was lost.

        That happens while the node has not discovered the client yet.
        """
        futures: list = []
        for _ in range(12):
            futures.append(service.call_async(request))
            if self.spin_until(lambda: any(f.done() for f in futures), 5.0):
                return next(f for f in futures if f.done()).result()
        raise AssertionError("the node did not answer")


@pytest.fixture
def client_in() -> type[Client]:
    """Return the client class, for a client in another namespace."""
    return Client


@pytest.fixture
def client(ros: None) -> Iterator[Client]:
    """Create a client in a namespace of its own."""
    made = Client(f"/test{time.monotonic_ns() % 10**9}")
    yield made
    made.node.destroy_node()


class Manager:
    """Changes and reads the node's state, as `ros2 lifecycle` does."""

    def __init__(self, client: Client) -> None:
        from lifecycle_msgs.srv import ChangeState, GetState

        self.client = client
        name = f"{client.namespace}/yolact"
        self.change = client.node.create_client(ChangeState, f"{name}/change_state")
        self.get = client.node.create_client(GetState, f"{name}/get_state")

    def wait(self) -> None:
        """Wait until the node answers, which it does when it has discovered the clients."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        assert self.client.spin_until(self.change.service_is_ready, 60.0)
        unknown = ChangeState.Request(transition=Transition(label="unknown"))
        assert not self.client.call(self.change, unknown).success
        assert self.client.spin_until(self.get.service_is_ready, 20.0)

    def set(self, transition: int) -> bool:
        """Request a transition, one of `Transition`'s constants; return whether it succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(id=transition))
        answer = self.change.call_async(request)
        assert self.client.spin_until(answer.done, 60.0), "the node did not answer"
        return answer.result().success

    def state(self) -> int:
        """Return the node's state, one of `State`'s constants."""
        from lifecycle_msgs.srv import GetState

        return self.client.call(self.get, GetState.Request()).current_state.id

    def set_parameter(self, name: str, value: object):
        """Set one parameter; return the response with its reason."""
        from rclpy.parameter import Parameter

        return self.client.set_parameters(Parameter(name, value=value))


@pytest.fixture
def manager(client: Client) -> Manager:
    """Create a manager of the node's life cycle."""
    return Manager(client)


@pytest.fixture
def start_node(
    start: Callable[..., Program], client: Client, squares_bundle: Path
) -> Callable[..., Program]:
    """Start the node in the client's namespace and wait until they have discovered each other."""

    def start_connected(**parameters: object) -> Program:
        values = {"model": squares_bundle, "threads": 1} | parameters
        given = {name: value for name, value in values.items() if value is not None}
        words = [word for name in given for word in ("-p", f"{name}:={given[name]}")]
        program = start("yolact_node", ros_arguments=("-r", f"__ns:={client.namespace}", *words))
        program.wait_for("Waiting for images")
        client.connect()
        return program

    return start_connected
