"""Play a video file as a camera, for demonstrations and tests without hardware."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolact_ros.config import Checked, setting
from yolact_ros.errors import ConfigError
from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.parameters.declare import declare_constant
from yolact_ros.ros.parameters.settings import parameters_usage
from yolact_ros.ros.program import run_ros
from yolact_ros.runtime.images.files import SourceImage, video_frames

IMAGE = "~/image_raw"
IMAGE_QOS = QoSProfile(depth=1)  # reliable, as camera drivers publish; matches any subscriber


@dataclass(frozen=True)
class CameraSettings(Checked):
    """Holds the parameters of the camera.

    Attributes:
        video: Video file to play (required).
        rate: Images per second (0 = as in the video).
        loop: Restart the video whenever it ends.
        wait: Start only when there is a subscriber.
        frame_id: frame_id in the headers of the images.
    """

    video: str = setting("")
    rate: float = setting(0.0, range=(0.0, 1000.0))
    loop: bool = setting(False)
    wait: bool = setting(True)
    frame_id: str = setting("camera_optical_frame")


class VideoCamera(Node):
    """Publishes the images of a video at its frame rate, stamped with the time of publication."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.settings = declare_constant(self, CameraSettings())
        self.publisher = self.create_publisher(Image, IMAGE, IMAGE_QOS)

    def play(self) -> int:
        """Play the video and return the number of published images.

        Raises:
            ConfigError: the file cannot be played.
        """
        rate = self.settings.rate or video_rate(self.settings.video)
        while self.settings.wait and not self.publisher.get_subscription_count():
            rclpy.spin_once(self, timeout_sec=0.05)
        self.get_logger().info(
            f"Publishing {self.settings.video} on {self.publisher.topic_name} at {rate:g} Hz."
        )
        start = time.monotonic()
        published = 0
        for image in read_video(self.settings.video, loop=self.settings.loop):
            while (early := start + published / rate - time.monotonic()) > 0:
                rclpy.spin_once(self, timeout_sec=early)
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self.settings.frame_id)
            self.publisher.publish(message_from_bgr(image, header))
            published += 1
        return published


def read_video(path: str, *, loop: bool = False) -> Iterator[np.ndarray]:
    """Yield the images of a video file, (H, W, 3) uint8 BGR each, once or forever.

    Raises:
        ConfigError: the file is missing or contains no readable image.
    """
    while True:
        for frame in _frames(path):
            if frame.image is None:
                raise ConfigError(frame.fault)
            yield frame.image
        if not loop:
            return


def video_rate(path: str) -> float:
    """Return the frame rate of a video file, or 30 if the file does not state one.

    Raises:
        ConfigError: the file is missing or contains no readable image.
    """
    first = next(_frames(path))
    if first.image is None:
        raise ConfigError(first.fault)
    return first.rate


def _frames(path: str) -> Iterator[SourceImage]:
    if not path:
        raise ConfigError("The parameter video is empty; set it to a video file.")
    return video_frames(Path(path), path)


def usage() -> str:
    """Return what `camera --help` prints."""
    summary = "Publish the images of a video file on ~/image_raw at the rate of the video."
    return parameters_usage("camera", summary, [CameraSettings()])


def main() -> int:
    """Play the video; return the exit status, which is 0 even after SIGINT or SIGTERM."""

    def work() -> int:
        camera = VideoCamera()
        published = camera.play()
        camera.get_logger().info(f"Published {published} images.")
        return 0

    return run_ros("camera", work)
