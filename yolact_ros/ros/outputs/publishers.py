"""Publishers of results; each message is built only while somebody listens to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node

from yolact_ros.msg import FrameStats
from yolact_ros.ros.inputs.mailbox import FrameCounts
from yolact_ros.ros.inputs.qos import new_publisher
from yolact_ros.ros.messages.instances import FRAME_TYPES
from yolact_ros.ros.outputs.result import Result
from yolact_ros.ros.outputs.topics import (
    HAS_VISION_MSGS,
    LABEL_INFO,
    LATCHED_QOS,
    RESULT_QOS,
    STATS,
    Topic,
    camera_info_topic,
    image_topics,
    space_topics,
)


class Outputs:
    """Publishers of one camera's results."""

    def __init__(self, node: Node, camera: str = "") -> None:
        """Advertise the topics.

        Args:
            node: whose topics they are.
            camera: name of the camera, which goes between `~/` and the topic's name.
        """
        self._node = node
        self._camera = camera
        self._info = camera_info_topic()
        self._space = space_topics()
        topics = [*image_topics(), self._info, *self._space]
        self._publishers = {topic: self._advertise(topic) for topic in topics}
        self._stats = new_publisher(node, FrameStats, camera_topic(STATS, camera), RESULT_QOS)
        self._labels: Any = None
        self._told: tuple[tuple[str, ...], float] | None = None
        if not HAS_VISION_MSGS:
            node.get_logger().info(
                "vision_msgs is not installed: ~/detections, ~/detections_3d and ~/label_info "
                "are off.",
                once=True,
            )

    def close(self) -> None:
        """Withdraw the topics."""
        for publisher in (*self._publishers.values(), self._stats, self._labels):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def wants_depth(self) -> bool:
        """Whether somebody listens to what is made of depth; any thread may ask."""
        return any(self._publishers[topic].get_subscription_count() for topic in self._space)

    def wants_info(self) -> bool:
        """Whether somebody listens to what is made of the camera's calibration."""
        return self.wants_depth() or bool(self._publishers[self._info].get_subscription_count())

    def tell_labels(self, class_names: tuple[str, ...], *, threshold: float) -> None:
        """Publish `~/label_info` if it has changed; who comes later gets it, too."""
        if not HAS_VISION_MSGS or self._told == (class_names, threshold):
            return
        from yolact_ros.ros.messages.vision import LabelInfo, label_info

        if self._labels is None:
            topic = camera_topic(LABEL_INFO, self._camera)
            self._labels = new_publisher(self._node, LabelInfo, topic, LATCHED_QOS)
        message = label_info(class_names, threshold=threshold)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._labels.publish(message)
        self._told = class_names, threshold

    def publish(self, result: Result) -> dict[str, float]:
        """Publish what was found in one image, the instances first.

        Returns:
            `publish_ms` of all of this and `latency_ms` from the camera's stamp to the publication
            of the instances.
        """
        started = time.perf_counter()
        latency_ms = 0.0
        for number, (topic, publisher) in enumerate(self._publishers.items()):
            if publisher.get_subscription_count():
                message = topic.make(result)
                if message is not None:
                    publisher.publish(message)
            if number == 0:
                now = self._node.get_clock().now().to_msg()
                latency_ms = milliseconds_since(result.header.stamp, now)
        return {
            "publish_ms": (time.perf_counter() - started) * 1e3,
            "latency_ms": latency_ms,
        }

    def publish_stats(
        self, result: Result, times: Mapping[str, float], *, counts: FrameCounts, lost: int
    ) -> None:
        """Publish what one image cost.

        Args:
            result: of that image.
            times: the fields of `FrameStats` that end in `_ms`, in milliseconds.
            counts: accounts of all images so far, this one included.
            lost: images that the middleware reported lost.
        """
        if not self._stats.get_subscription_count():
            return
        message = FrameStats(
            header=result.header,
            frame_type=FRAME_TYPES[result.detections.frame_type],
            keyframe_reason=result.detections.keyframe_reason or "",
            instances=len(result.detections),
            received=counts.received,
            processed=counts.processed,
            dropped=counts.dropped,
            stale=counts.stale,
            lost=lost,
            failed=counts.failed,
            **times,
        )
        self._stats.publish(message)

    def _advertise(self, topic: Topic) -> Any:
        name = camera_topic(topic.name, self._camera)
        return new_publisher(self._node, topic.kind, name, topic.qos)


def camera_topic(topic: str, camera: str) -> str:
    """A topic of one camera: `~/front/overlay` for `~/overlay`; the same if it has no name."""
    return topic.replace("~/", f"~/{camera}/", 1) if camera else topic


def milliseconds_since(earlier: Time, later: Time) -> float:
    """Milliseconds between two stamps; negative when they are the other way round."""
    return (later.sec - earlier.sec) * 1e3 + (later.nanosec - earlier.nanosec) * 1e-6
