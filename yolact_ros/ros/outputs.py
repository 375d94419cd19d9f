"""The topics that the node publishes, each built only while somebody listens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.images import message_from_bgr
from yolact_ros.ros.mailbox import FrameCounts
from yolact_ros.ros.messages import FRAME_TYPES, message_from_detections
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.draw import draw_detections
from yolact_ros.runtime.mask_encodings import MASK_ENCODINGS

INSTANCES = "~/instances"
OVERLAY = "~/overlay"
STATS = "~/stats"
# Reliable and volatile: serves reliable and best-effort subscribers alike.
RESULT_QOS = QoSProfile(depth=5)
OVERLAY_QOS = QoSProfile(depth=1)


@dataclass(frozen=True)
class Result:
    """One segmented image.

    Attributes:
        header: of the image.
        image: (H, W, 3) uint8 BGR.
        detections: what was found in it.
        keyframe_stamp: stamp of the image that the deep features come from.
    """

    header: Header
    image: np.ndarray
    detections: Detections
    keyframe_stamp: Time


class Outputs:
    """Publishers of one camera's results."""

    def __init__(self, node: Node, camera: str = "") -> None:
        """Advertise the topics.

        Args:
            node: whose topics they are.
            camera: name of the camera, which goes between `~/` and the topic's name.
        """
        self._node = node
        self._clock = node.get_clock()
        self._instances = node.create_publisher(
            InstanceArray, camera_topic(INSTANCES, camera), RESULT_QOS
        )
        self._overlay = node.create_publisher(Image, camera_topic(OVERLAY, camera), OVERLAY_QOS)
        self._stats = node.create_publisher(FrameStats, camera_topic(STATS, camera), RESULT_QOS)

    def close(self) -> None:
        """Withdraw the topics."""
        for publisher in (self._instances, self._overlay, self._stats):
            self._node.destroy_publisher(publisher)

    def publish(
        self, result: Result, class_names: Sequence[str], *, mask_encoding: str
    ) -> dict[str, float]:
        """Publish instances, then the overlay.

        Args:
            result: of one image.
            class_names: name of each class id.
            mask_encoding: a key of `MASK_ENCODINGS`.

        Returns:
            `publish_ms` of all of this and `latency_ms` from the camera's stamp to the publication
            of the instances.
        """
        started = time.perf_counter()
        message = message_from_detections(
            result.detections,
            class_names,
            header=result.header,
            keyframe_stamp=result.keyframe_stamp,
            mask_encoding=MASK_ENCODINGS[mask_encoding],
        )
        self._instances.publish(message)
        latency_ms = milliseconds_since(result.header.stamp, self._clock.now().to_msg())
        if self._overlay.get_subscription_count():
            drawn = draw_detections(result.image, result.detections, class_names)
            self._overlay.publish(message_from_bgr(drawn, result.header))
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


def camera_topic(topic: str, camera: str) -> str:
    """A topic of one camera: `~/front/overlay` for `~/overlay`; the same if it has no name."""
    return topic.replace("~/", f"~/{camera}/", 1) if camera else topic


def milliseconds_since(earlier: Time, later: Time) -> float:
    """Milliseconds between two stamps; negative when they are the other way round."""
    return (later.sec - earlier.sec) * 1e3 + (later.nanosec - earlier.nanosec) * 1e-6
