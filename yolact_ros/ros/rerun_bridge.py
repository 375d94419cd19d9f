"""Show the node's topics live in the Rerun viewer."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

from yolact_ros.errors import MessageError
from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.diagnostics.health import STAGES
from yolact_ros.ros.messages.images import bgr_from_message
from yolact_ros.ros.messages.points import POINT
from yolact_ros.ros.program import run_ros
from yolact_ros.runtime.stamps import nanoseconds
from yolact_ros.view.recording import Recording

PICTURE = "picture"
LOOK_S = 1.0  # interval of the checks for new topics


class RerunBridge(Node):
    """Subscribes to the topics that have a publisher, and logs their messages."""

    def __init__(self, recording: Recording, *, image: str, node: str) -> None:
        """Start looking for topics.

        Args:
            recording: destination of the messages.
            image: image topic; its compressed images are used if there are no raw ones.
            node: full name of the node, or of one of its cameras: `/yolact/front`.
        """
        super().__init__("rerun_bridge")
        self._recording = recording
        self._images = (image, f"{image}/compressed")
        self._wanted: dict[str, tuple[type[Any], Callable[[Any], None]]] = {
            self._images[0]: (Image, self._on_image),
            self._images[1]: (CompressedImage, self._on_image),
            f"{node}/instances": (InstanceArray, self._on_instances),
            f"{node}/class_image": (Image, self._on_class_image),
            f"{node}/stats": (FrameStats, self._on_stats),
            f"{node}/points": (PointCloud2, self._on_points),
            f"{node}/markers": (MarkerArray, self._on_markers),
        }
        recording.arrange(PICTURE)
        self.create_timer(LOOK_S, self._look)
        self._look()

    def _look(self) -> None:
        for topic, (kind, log) in list(self._wanted.items()):
            if topic in self._wanted and self.count_publishers(topic):
                self.create_subscription(
                    kind, topic, partial(self._log, log), qos_profile_sensor_data
                )
                self.get_logger().info(f"Showing {topic}.")
                if kind in (PointCloud2, MarkerArray):
                    self._recording.arrange(PICTURE, space=True)
                for name in self._images if topic in self._images else (topic,):
                    del self._wanted[name]

    def _log(self, log: Callable[[Any], None], message: Any) -> None:
        if not isinstance(message, MarkerArray):
            header = message.header
        elif message.markers:
            header = message.markers[0].header
        else:
            return
        self._recording.set_ros_time(nanoseconds(header.stamp))
        try:
            log(message)
        except MessageError as error:
            self.get_logger().warning(
                f"An image cannot be shown: {error}", throttle_duration_sec=5.0
            )

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._recording.log_image(PICTURE, bgr_from_message(message))

    def _on_class_image(self, message: Image) -> None:
        labels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
        self._recording.log_masks(PICTURE, labels)

    def _on_instances(self, message: InstanceArray) -> None:
        found = message.instances
        self._recording.name_classes({i.class_id: i.class_name for i in found})
        self._recording.log_boxes(
            PICTURE,
            np.array([(i.x_min, i.y_min, i.x_max, i.y_max) for i in found], np.float32),
            [i.class_id for i in found],
            [f"{i.class_name} {i.score:.2f}" for i in found],
            [i.track_id for i in found],
        )

    def _on_stats(self, message: FrameStats) -> None:
        self._recording.log_timings({stage: getattr(message, f"{stage}_ms") for stage in STAGES})

    def _on_points(self, message: PointCloud2) -> None:
        points = np.frombuffer(message.data, POINT)
        colors = np.stack([points["rgb"] >> shift & 255 for shift in (16, 8, 0)], axis=-1)
        xyz = np.stack([points["x"], points["y"], points["z"]], axis=-1)
        self._recording.log_points(xyz, colors.astype(np.uint8))

    def _on_markers(self, message: MarkerArray) -> None:
        boxes = [m for m in message.markers if m.type == Marker.CUBE and m.action == Marker.ADD]
        names = [m.text for m in message.markers if m.type == Marker.TEXT_VIEW_FACING]
        centers = [(m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in boxes]
        sizes = [(m.scale.x, m.scale.y, m.scale.z) for m in boxes]
        self._recording.log_boxes_3d(
            np.reshape(centers, (-1, 3)), np.reshape(sizes, (-1, 3)), names
        )


def main() -> int:
    """Show topics until a signal arrives; return the exit status."""
    parser = argparse.ArgumentParser(prog="rerun_bridge", description=__doc__)
    text = "topic of the images (default: %(default)s)"
    parser.add_argument("--image", default="/image", metavar="TOPIC", help=text)
    text = (
        "full name of the node, with the camera appended if there are several, e.g. /yolact/front "
        "(default: %(default)s)"
    )
    parser.add_argument("--node", default="/yolact", metavar="NAME", help=text)
    text = "write the recording to this file instead of opening the viewer"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.rrd", help=text)
    arguments = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])

    def work() -> int:
        with contextlib.closing(Recording(arguments.output)) as recording:
            rclpy.spin(RerunBridge(recording, image=arguments.image, node=arguments.node))
        return 0

    return run_ros("rerun_bridge", work)
