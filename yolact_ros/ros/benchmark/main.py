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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from yolact_ros.msg import FrameStats
from yolact_ros.ros.benchmark.camera import NAMESPACE, BenchmarkCamera
from yolact_ros.ros.benchmark.model import write_benchmark_model
from yolact_ros.ros.demo.child_process import ChildProcess, run_with_node
from yolact_ros.ros.outputs.topics import image_topics, space_topics

RATE = 30.0  # images per second
WORK_MS = 80.0


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
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="duration of each measurement (default: %(default)s)",
    )
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
