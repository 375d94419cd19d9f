"""Measure the node's own cost: image age at inference, overhead and CPU.

    ros2 run yolact_ros node_benchmark

Camera and subscriber run in this process, the node in its own, with DDS in between. The model is
generated for the benchmark, so its inference time and its 20 instances are known in advance.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tqdm import tqdm

from yolact_ros.errors import BackendError
from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.benchmark.model import write_benchmark_model
from yolact_ros.ros.demo.child_process import ChildProcess, run_with_node
from yolact_ros.ros.demo.video_camera import IMAGE_QOS
from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.outputs.topics import image_topics, space_topics

NAMESPACE = "/node_benchmark"
IMAGE_SHAPE = (480, 640, 3)
DEPTH_MM = 1500
FOCAL = 525.0  # pixels
START_S = 60.0  # timeout for the node to load its model
SETTLE_S = 0.5  # for discovery on both sides
RATE = 30.0  # images per second
WORK_MS = 80.0


class BenchmarkCamera(Node):
    """Publishes images, with depth on demand, and can subscribe to the node's results."""

    def __init__(self, node: ChildProcess) -> None:
        super().__init__("camera", namespace=NAMESPACE)
        self.stats: list[FrameStats] = []
        self._node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._image = message_from_bgr(
            np.full(IMAGE_SHAPE, 90, np.uint8), Header(frame_id="camera_optical_frame")
        )
        self._camera = self.create_publisher(Image, "image", IMAGE_QOS)
        self._depth_image, self._info = depth_messages()
        self._depth = self.create_publisher(Image, "depth/image", IMAGE_QOS)
        self._calibration = self.create_publisher(CameraInfo, "camera_info", IMAGE_QOS)
        self._sent = 0.0
        self._wait_until(self._camera.get_subscription_count)

    def listen(self) -> list[float]:
        """Subscribe to instances and statistics; return what `take` does for the instances."""
        self.create_subscription(FrameStats, "yolact/stats", self.stats.append, 10)
        return self.take("yolact/instances", InstanceArray, 10)

    def take(self, name: str, kind: type, qos: QoSProfile | int) -> list[float]:
        """Subscribe to one more topic and discard its messages.

        Returns:
            Milliseconds from the newest image until each message arrives; the list grows.
        """
        ages: list[float] = []

        def note_age(_: bytes) -> None:
            ages.append((time.monotonic() - self._sent) * 1e3)

        # Raw, so that deserialization in Python is not measured.
        self.create_subscription(kind, name, note_age, qos, raw=True)
        self._wait_until(lambda: self.count_publishers(name))
        return ages

    def wait_for_depth_demand(self) -> None:
        """Wait until the node has subscribed to the depth images."""
        self._wait_until(self._depth.get_subscription_count)

    def close(self) -> None:
        """Destroy the publishers and subscriptions."""
        self._executor.shutdown()
        self.destroy_node()

    def idle(self, seconds: float, name: str) -> None:
        """Publish nothing for some seconds."""
        for _ in tqdm(range(round(seconds)), desc=name, unit="s", disable=None):
            self._spin_until(time.monotonic() + 1.0)

    def play(self, count: int, rate: float, name: str) -> None:
        """Publish `rate` images per second."""
        start = time.monotonic()
        for number in tqdm(range(1, count + 1), desc=name, unit="image", disable=None):
            self._spin_until(start + number / rate)
            self._image.header.stamp = self.get_clock().now().to_msg()
            self._sent = time.monotonic()
            self._camera.publish(self._image)
            if self._depth.get_subscription_count():
                self._depth_image.header = self._info.header = self._image.header
                self._depth.publish(self._depth_image)
                self._calibration.publish(self._info)

    def _spin_until(self, moment: float) -> None:
        """Spin until a `time.monotonic()` time; spin once if it has already passed."""
        for _ in range(4):
            self._executor.spin_once(timeout_sec=0.0)
        while (early := moment - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=early)
        if self._node.status is not None:
            raise BackendError(
                f"The node ended with status {self._node.status}; see its messages above."
            )

    def _wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            self._spin_until(time.monotonic() + 0.1)
            if time.monotonic() > deadline:
                raise BackendError(f"The node was not ready after {START_S:.0f} s.")
        self._spin_until(time.monotonic() + SETTLE_S)


def depth_messages() -> tuple[Image, CameraInfo]:
    """Return a plane at a constant depth that fits the images, and their calibration."""
    height, width, _ = IMAGE_SHAPE
    image = Image(height=height, width=width, encoding="16UC1", step=2 * width)
    image.data.frombytes(np.full((height, width), DEPTH_MM, "<u2").tobytes())
    info = CameraInfo(height=height, width=width)
    info.k = [FOCAL, 0.0, width / 2, 0.0, FOCAL, height / 2, 0.0, 0.0, 1.0]
    return image, info


def age_at_inference_ms(stats: FrameStats) -> float:
    """Return the age of an image, since its stamp, when inference started, in milliseconds."""
    return stats.transport_ms + stats.wait_ms + stats.decode_ms + stats.preprocess_ms


def overhead_ms(stats: FrameStats) -> float:
    """Return how much longer the node takes to publish an image's instances than the Segmenter."""
    segmenter = stats.preprocess_ms + stats.inference_ms + stats.postprocess_ms
    return stats.latency_ms - stats.transport_ms - stats.wait_ms - segmenter


def percentiles(values: Iterable[float]) -> str:
    """Format the median and the 95th percentile, or say that there are no values."""
    values = list(values)
    if not values:
        return "no results"
    p50, p95 = np.percentile(values, [50, 95])
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms"


def cpu_seconds(process: int) -> float:
    """Return the CPU time that a process has used so far, over all threads (Linux only)."""
    # The name in parentheses may contain anything; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class NodeBenchmark:
    """Measures the node and prints one line per measurement."""

    def __init__(self, folder: Path, *, seconds: float) -> None:
        """Create the benchmark.

        Args:
            folder: where models are written; may be deleted afterwards.
            seconds: duration of each measurement.
        """
        self._folder = folder
        self._seconds = seconds

    def measure_age(self) -> None:
        """Measure image age at inference start with a network slower than the camera."""
        model = write_benchmark_model(self._folder / "slow", inference_ms=WORK_MS)
        with start_node(model) as node:
            camera = BenchmarkCamera(node)
            camera.listen()
            stats = self._play(camera, "age")
            age = percentiles(map(age_at_inference_ms, stats))
            self._note(f"age at inference start, {RATE:g} Hz", age, "p50 <= 25 ms")
            work = percentiles(one.inference_ms for one in stats)
            self._note(f"  measured time of the network built for {WORK_MS:g} ms", work)
            camera.close()

    def measure_costs(self) -> None:
        """Measure CPU and overhead with a network that costs almost nothing."""
        with start_node(write_benchmark_model(self._folder / "fast")) as node:
            camera = BenchmarkCamera(node)
            with self._cpu("no image, no subscriber", node, "near 0"):
                camera.idle(self._seconds, "no image")
            with self._cpu(f"{RATE:g} Hz, no subscriber", node):
                self._play(camera, "no subscriber")
            instances = camera.listen()
            with self._cpu(f"{RATE:g} Hz, instances and stats", node):
                stats = self._play(camera, "subscribers")
            overhead = percentiles(map(overhead_ms, stats))
            self._note("overhead beyond the Segmenter", overhead, "p50 < 3 ms")
            for topic in image_topics()[1:]:  # ~/instances is already subscribed
                camera.take(topic.name.replace("~", "yolact"), topic.kind, topic.qos)
                published = (one.publish_ms for one in self._play(camera, topic.name))
                self._note(f"publishing, with {topic.name}", percentiles(published), "p50 < 5 ms")
            for topic in space_topics():
                ages = camera.take(topic.name.replace("~", "yolact"), topic.kind, topic.qos)
                camera.wait_for_depth_demand()
                instances.clear()
                published = (one.publish_ms for one in self._play(camera, topic.name))
                self._note(f"publishing, with {topic.name}", percentiles(published), "p50 < 5 ms")
                self._note(f"  arrival of {topic.name}", percentiles(ages))
                self._note("  arrival of ~/instances", percentiles(instances))
            with self._cpu(f"{RATE:g} Hz, all topics", node):
                self._play(camera, "all topics")
            camera.close()

    def _play(self, camera: BenchmarkCamera, name: str) -> list[FrameStats]:
        """Play at the usual rate; return the statistics without those of the first images."""
        before = len(camera.stats)
        camera.play(round(self._seconds * RATE), RATE, name)
        return camera.stats[before + 2 :]

    @contextmanager
    def _cpu(self, what: str, node: ChildProcess, goal: str = "") -> Iterator[None]:
        """Print the node's CPU time during the block, in percent of one core."""
        cpu, started = cpu_seconds(node.pid), time.monotonic()
        yield
        fraction = (cpu_seconds(node.pid) - cpu) / (time.monotonic() - started)
        self._note(f"CPU, {what}", f"{100 * fraction:.1f} % of a core", goal)

    def _note(self, what: str, value: str, goal: str = "") -> None:
        print(f"{what:<45}  {value:<30}  {goal}".rstrip(), flush=True)


def start_node(model: Path) -> ChildProcess:
    """Start the node on a model, in the benchmark's namespace."""
    # Run the network on every image, because its cost is known.
    parameters = ("-p", f"model:={model}", "-p", "threads:=1", "-p", "propagated_frames:=0")
    return ChildProcess("yolact_node", "-r", f"__ns:={NAMESPACE}", *parameters)


def main() -> int:
    """Run the measurements that the command line selects; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="node_benchmark", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    text = "duration of each measurement (default: %(default)s)"
    parser.add_argument("--seconds", type=float, default=10.0, help=text)
    arguments = parser.parse_args()
    if arguments.seconds < 1.0:
        parser.error("--seconds must be 1 or more")

    def measure() -> int:
        with tempfile.TemporaryDirectory() as folder:
            benchmark = NodeBenchmark(Path(folder), seconds=arguments.seconds)
            benchmark.measure_age()
            benchmark.measure_costs()
        return 0

    return run_with_node("node_benchmark", measure)
