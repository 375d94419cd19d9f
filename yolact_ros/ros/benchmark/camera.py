"""Provide the benchmark's camera and subscriber."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tqdm import tqdm

from yolact_ros.errors import BackendError
from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.demo.child_process import ChildProcess
from yolact_ros.ros.demo.video_camera import IMAGE_QOS
from yolact_ros.ros.messages.images import message_from_bgr

NAMESPACE = "/node_benchmark"
IMAGE_SHAPE = (480, 640, 3)
DEPTH_MM = 1500
FOCAL = 525.0  # pixels
START_S = 60.0  # timeout for the node to load its model
SETTLE_S = 0.5  # for discovery on both sides


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
