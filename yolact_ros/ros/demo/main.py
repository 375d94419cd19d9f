"""Run the demonstration: a camera, the node and a subscriber, each in its own process."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from yolact_ros.errors import ConfigError
from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.demo.child_process import ChildProcess, run_with_node
from yolact_ros.ros.demo.video_camera import video_rate
from yolact_ros.ros.messages.images import bgr_from_message
from yolact_ros.runtime.output.video import VideoFile
from yolact_ros.runtime.stamps import nanoseconds

CAMERA_TOPIC = "/camera/image_raw"
QOS = QoSProfile(depth=10)
OTHER_VIDEOS = """\
People and everyday objects in your own video: make demo CLIP=video.mp4 MODEL=everyday
From a webcam: ros2 run v4l2_camera v4l2_camera_node
               ros2 launch yolact_ros yolact.launch.py model:=everyday image:=/image_raw"""
TITLE = f"{'in':>8} {'out':>8} {'latency p50':>12} {'p95':>7} {'dropped':>8}  seen"
PRINT_S = 1.0
START_S = 60.0  # timeout for the node to load its model
SETTLE_S = 3.0  # for the last images after the clip has ended


class Listener(Node):
    """Counts, measures and records the results like an ordinary client of the node."""

    def __init__(self, video: OverlayVideo) -> None:
        super().__init__("demo")
        self.stats: list[FrameStats] = []
        self._video = video
        # Of the images since the last printed line.
        self._recent: list[FrameStats] = []
        self._classes: list[Counter[str]] = []
        self.create_timer(PRINT_S, self._print)
        self.create_subscription(InstanceArray, "/yolact/instances", self._on_instances, QOS)
        self.create_subscription(FrameStats, "/yolact/stats", self._on_stats, QOS)
        self.create_subscription(Image, "/yolact/overlay", self._on_overlay, QOS)

    def settled(self) -> bool:
        """Return whether every image that the node received is accounted for."""
        if not self.stats:
            return False
        last = self.stats[-1]
        return last.received == last.processed + last.dropped + last.stale + last.failed

    def _print(self) -> None:
        """Print a line about the images since the last one."""
        recent, classes = self._recent, self._classes
        self._recent, self._classes = [], []
        before = len(self.stats) - len(recent)
        if not before:
            if recent:  # the first images; their number depends on when the camera started
                print(TITLE, flush=True)
        elif not recent:
            print("no results in the last second", flush=True)
        else:
            last, previous = recent[-1], self.stats[before - 1]
            p50, p95 = np.percentile([message.latency_ms for message in recent], [50, 95])
            print(
                f"{(last.received - previous.received) / PRINT_S:5.1f} Hz "
                f"{len(recent) / PRINT_S:5.1f} Hz {p50:9.0f} ms {p95:4.0f} ms "
                f"{last.dropped - previous.dropped:>8}  {_describe(classes)}",
                flush=True,
            )

    def _on_instances(self, message: InstanceArray) -> None:
        self._classes.append(Counter(instance.class_name for instance in message.instances))

    def _on_stats(self, message: FrameStats) -> None:
        self.stats.append(message)
        self._recent.append(message)

    def _on_overlay(self, message: Image) -> None:
        # A copy, because the array is a view of the message.
        image = bgr_from_message(message).copy()
        self._video.add(image, nanoseconds(message.header.stamp) * 1e-9)


def _describe(classes: list[Counter[str]]) -> str:
    """Return the mean number of instances per class, such as `2 mug, 1 duck`."""
    total: Counter[str] = Counter()
    for counts in classes:
        total.update(counts)
    means = {name: round(count / len(classes)) for name, count in total.most_common()}
    return ", ".join(f"{mean} {name}" for name, mean in means.items() if mean) or "nothing"


def run(clip: Path, model: str, *, output: Path) -> int:
    """Play a clip through the node.

    Args:
        clip: a video file.
        model: bundle or checkpoint; empty for the default model.
        output: folder for the overlay video and the picture.

    Returns:
        The exit status: 0 if the node processed the whole clip.

    Raises:
        ConfigError: the clip cannot be read or the video cannot be written.
    """
    rate = video_rate(str(clip))
    output.mkdir(parents=True, exist_ok=True)
    video = OverlayVideo(output / "demo.mp4", rate)
    listener = Listener(video)
    arguments = ["-r", f"image:={CAMERA_TOPIC}"]
    if model:
        arguments += ["-p", f"model:={model}"]
    with ChildProcess("yolact_node", *arguments) as node:
        deadline = time.monotonic() + START_S
        while not listener.count_subscribers(CAMERA_TOPIC):
            rclpy.spin_once(listener, timeout_sec=0.1)
            if node.status is not None or time.monotonic() > deadline:
                return _report_end(node)
        with ChildProcess("camera", "-p", f"video:={clip}") as camera:
            while camera.status is None and node.status is None:
                rclpy.spin_once(listener, timeout_sec=0.1)
            if camera.status:
                return _report_end(camera)
        settle_until = time.monotonic() + SETTLE_S
        while node.status is None and not listener.settled() and time.monotonic() < settle_until:
            rclpy.spin_once(listener, timeout_sec=0.1)
        if node.status is not None or node.end() != 0:
            return _report_end(node)
    video.close()
    if video.last is None:
        print("demo: the node published no overlay; see its messages above.", file=sys.stderr)
        return 1
    if not cv2.imwrite(str(output / "demo.png"), video.last):
        raise ConfigError(f"{output / 'demo.png'} cannot be written; check free disk space.")
    _print_summary(listener.stats)
    print(f"Wrote {output / 'demo.mp4'} and {output / 'demo.png'}")
    print(OTHER_VIDEOS)
    return 0


def _report_end(process: ChildProcess) -> int:
    what = f"ended with status {process.status}"
    if process.status is None:
        what = f"was not ready after {START_S:.0f} s"
    print(f"demo: {process.name} {what}; see its messages above.", file=sys.stderr)
    return 1


def _print_summary(stats: list[FrameStats]) -> None:
    last = stats[-1]
    latencies = [message.latency_ms for message in stats]
    stages = ", ".join(
        f"{stage} {np.median([getattr(message, f'{stage}_ms') for message in stats]):.1f}"
        for stage in ("transport", "wait", "preprocess", "inference", "postprocess", "publish")
    )
    p50, p95 = np.percentile(latencies, [50, 95])
    print(
        f"Images: {last.received} received, {last.processed} processed, {last.dropped} replaced "
        f"by newer ones, {last.failed} failed, {last.lost} lost in transport.\n"
        f"Latency from the camera's stamp to the instances: p50 {p50:.0f} ms, p95 {p95:.0f} ms; "
        f"medians in ms: {stages}."
    )


def main() -> int:
    """Run the demonstration; return the exit status."""
    share = Path(get_package_share_directory("yolact_ros"))
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    clip = share / "models/demo/tabletop.mp4"
    text = "video to play (default: the shipped demo clip)"
    parser.add_argument("--clip", type=Path, default=clip, help=text)
    text = "shipped model, bundle folder or checkpoint file (default: tabletop)"
    parser.add_argument("--model", default="", help=text)
    text = "folder for the video and the image (default: out)"
    parser.add_argument("--output", type=Path, default=Path("out"), help=text)
    arguments = parser.parse_args()
    return run_with_node(
        "demo", lambda: run(arguments.clip, arguments.model, output=arguments.output)
    )


class OverlayVideo:
    """Writes images at the times of their stamps.

    The video has a constant frame rate; each image is shown until the time of the next one, so the
    video is as long as the recorded time, however many images were dropped.

    Attributes:
        last: the latest image; None before the first one.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Create a recorder; the file is opened at the first image.

        Args:
            path: video file, ending in .mp4.
            rate: images per second.
        """
        self.last: np.ndarray | None = None
        self._path = path
        self._rate = rate
        self._video: VideoFile | None = None
        self._start = 0.0

    def add(self, image: np.ndarray, seconds: float) -> None:
        """Show an image from the given time on.

        Args:
            image: (H, W, 3) uint8 BGR; all images must have the same size.
            seconds: its stamp; must not precede the previous one.

        Raises:
            DatasetError: OpenCV cannot write the file.
        """
        if self._video is None:
            self._video = VideoFile(self._path, self._rate, image)
            self._start = seconds
        self._write_until(round((seconds - self._start) * self._rate))
        self.last = image

    def close(self) -> int:
        """Finish the file and return its number of images.

        Raises:
            DatasetError: the video is incomplete.
        """
        if self._video is None:
            return 0
        self._write_until(self._video.length + 1)
        self._video.close()
        return self._video.length

    def _write_until(self, length: int) -> None:
        while self._video is not None and self.last is not None and self._video.length < length:
            self._video.write(self.last)
