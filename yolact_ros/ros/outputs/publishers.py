"""Publish results; a message is built only while its topic has a subscriber."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node

from yolact_ros.msg import FrameStats
from yolact_ros.ros.inputs.mailbox import COUNTED, FrameCounts
from yolact_ros.ros.inputs.qos import new_publisher
from yolact_ros.ros.outputs.result import Result
from yolact_ros.ros.outputs.space_thread import SpaceThread
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
from yolact_ros.runtime.output.instance_array import FRAME_TYPES
from yolact_ros.runtime.stamps import nanoseconds


class Outputs:
    """Owns the publishers of one camera's results."""

    def __init__(
        self,
        node: Node,
        camera: str = "",
        *,
        keeps_all: bool = False,
        on_demand: Callable[[], None] = lambda: None,
    ) -> None:
        """Advertise the topics.

        Args:
            node: node that owns the publishers.
            camera: name of the camera, inserted between `~/` and the topic name.
            keeps_all: whether every image must have its 3-D results, so that the worker waits
                for depth; otherwise a thread waits, and newer results replace waiting ones.
            on_demand: called by the executor when subscribers of topics that need depth or
                calibration come or go.
        """
        self._node = node
        self._camera = camera
        self._info = camera_info_topic()
        self._publishers = {topic: self._advertise(topic) for topic in image_topics()}
        self._publishers[self._info] = self._advertise(self._info, on_demand)
        self._space_publishers = {t: self._advertise(t, on_demand) for t in space_topics()}
        self._space_thread: SpaceThread | None = None
        if not keeps_all:
            self._space_thread = SpaceThread(self.publish_space, logger=node.get_logger())
        self._counting_since = node.get_clock().now().to_msg()
        self._stats = new_publisher(node, FrameStats, camera_topic(STATS, camera), RESULT_QOS)
        self._labels: Any = None
        self._published_labels: tuple[tuple[str, ...], float] | None = None
        if not HAS_VISION_MSGS:
            node.get_logger().info(
                "vision_msgs is not installed: ~/detections, ~/detections_3d and ~/label_info are "
                "disabled.",
                once=True,
            )

    def close(self) -> None:
        """Destroy the publishers."""
        if self._space_thread is not None:
            self._space_thread.end()
        publishers = (*self._publishers.values(), *self._space_publishers.values())
        for publisher in (*publishers, self._stats, self._labels):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def needs_depth(self) -> bool:
        """Return whether a 3-D topic has a subscriber; callable from any thread."""
        return any(p.get_subscription_count() for p in self._space_publishers.values())

    def needs_info(self) -> bool:
        """Return whether a topic that needs the camera's calibration has a subscriber."""
        return self.needs_depth() or bool(self._publishers[self._info].get_subscription_count())

    def publish_labels(self, class_names: tuple[str, ...], *, threshold: float) -> None:
        """Publish `~/label_info` if it has changed; late subscribers receive it as well."""
        if not HAS_VISION_MSGS or self._published_labels == (class_names, threshold):
            return
        from yolact_ros.ros.messages.vision import LabelInfo, label_info

        if self._labels is None:
            topic = camera_topic(LABEL_INFO, self._camera)
            self._labels = new_publisher(self._node, LabelInfo, topic, LATCHED_QOS)
        message = label_info(class_names, threshold=threshold)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._labels.publish(message)
        self._published_labels = class_names, threshold

    def publish(self, result: Result) -> dict[str, float]:
        """Publish the results of one image, instances first and 3-D topics last.

        Returns:
            `publish_ms`, the publishing time, and `latency_ms`, the time from camera stamp to
            the publication of the instances; NaN if the node's clock has not started.
        """
        started = time.perf_counter()
        latency_ms = 0.0
        for number, (topic, publisher) in enumerate(self._publishers.items()):
            _publish(topic, publisher, result)
            if number == 0:
                now = self._node.get_clock().now().to_msg()
                latency_ms = milliseconds_since(result.header.stamp, now)
        if self.needs_depth():
            if self._space_thread is None:
                self.publish_space(result)
            else:
                self._space_thread.submit(result)
        return {"publish_ms": (time.perf_counter() - started) * 1e3, "latency_ms": latency_ms}

    def publish_space(self, result: Result) -> None:
        """Publish the 3-D topics of one image; may wait for its depth."""
        for topic, publisher in self._space_publishers.items():
            _publish(topic, publisher, result)

    def space_counts(self) -> FrameCounts | None:
        """Return the counts of the 3-D results; None if the worker publishes them."""
        return None if self._space_thread is None else self._space_thread.counts()

    def pause(self, timeout: float) -> bool:
        """Start no 3-D results; return False if any are unfinished after `timeout` seconds."""
        return self._space_thread is None or self._space_thread.pause(timeout)

    def resume(self) -> None:
        """Resume publishing 3-D results."""
        if self._space_thread is not None:
            self._space_thread.resume()

    def publish_stats(
        self, result: Result, times: Mapping[str, float], *, counts: FrameCounts, lost: int
    ) -> None:
        """Publish what processing one image cost.

        Args:
            result: result of that image.
            times: the fields of `FrameStats` that end in `_ms`, in milliseconds.
            counts: counts of all images so far, including this one.
            lost: number of images that the middleware reported lost.
        """
        if not self._stats.get_subscription_count():
            return
        message = FrameStats(
            header=result.header,
            frame_type=FRAME_TYPES[result.detections.frame_type],
            keyframe_reason=result.detections.keyframe_reason or "",
            instances=len(result.detections),
            counting_since=self._counting_since,
            lost=lost,
            **{name: getattr(counts, name) for name in COUNTED},
            **times,
        )
        self._stats.publish(message)

    def _advertise(self, topic: Topic, on_matched: Callable[[], None] = lambda: None) -> Any:
        name = camera_topic(topic.name, self._camera)
        return new_publisher(self._node, topic.kind, name, topic.qos, on_matched=on_matched)


def _publish(topic: Topic, publisher: Any, result: Result) -> None:
    if publisher.get_subscription_count() and (message := topic.make(result)) is not None:
        publisher.publish(message)


def camera_topic(topic: str, camera: str) -> str:
    """Insert a camera's name if there is one: `~/front/overlay` for `~/overlay`."""
    return topic.replace("~/", f"~/{camera}/", 1) if camera else topic


def milliseconds_since(earlier: Time, later: Time) -> float:
    """Return the milliseconds from one stamp to another.

    The result is negative if `later` precedes `earlier`, and NaN if either is zero: then a camera
    does not stamp its images, or a simulated clock has not started.
    """
    start, end = nanoseconds(earlier), nanoseconds(later)
    return (end - start) * 1e-6 if start and end else math.nan
