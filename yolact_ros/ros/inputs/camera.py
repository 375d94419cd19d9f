"""Receive the images of one camera into its mailbox."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from yolact_ros.ros.inputs.graph import explain_silence
from yolact_ros.ros.inputs.mailbox import Inbox, Mailbox
from yolact_ros.ros.inputs.qos import SubscriptionWatch
from yolact_ros.ros.parameters.settings import InputSettings

IMAGE = "image"


@dataclass(frozen=True)
class CameraFrame:
    """Holds one image as received.

    Attributes:
        message: the image message.
        stamp: the node's clock on arrival.
        arrived: `time.perf_counter()` on arrival.
    """

    message: Image | CompressedImage
    stamp: Time
    arrived: float


class CameraInput:
    """Puts the images of one camera into its mailbox while subscribed.

    Attributes:
        name: name of the camera; empty if it is the only one.
        topic: full name of the image topic.
        mailbox: holds the waiting images and counts all of them.
        watch: the subscription and its middleware events.
    """

    def __init__(
        self, node: Node, name: str, *, inbox: Inbox[CameraFrame], settings: InputSettings
    ) -> None:
        self.name = name
        self._type, self._topic_name = image_topic(
            node, f"{name}/{IMAGE}" if name else IMAGE, settings.image_transport
        )
        self.watch = SubscriptionWatch(node, self._topic_name)
        self.topic = self.watch.topic
        self._node = node
        self._keeps_all = settings.queue_policy == "all"
        self._subscription: Subscription[Any] | None = None
        self._group: BackpressureGroup | None = None
        keep = settings.queue_size if self._keeps_all else 0
        self.mailbox: Mailbox[CameraFrame] = inbox.new_mailbox(
            keep=keep, on_room=partial(wake_executor, node)
        )

    def subscribe(self) -> None:
        """Start receiving images, unless already subscribed."""
        if self._subscription is not None:
            return
        qos = image_qos(keeps_all=self._keeps_all)
        self._group = BackpressureGroup(lambda: self.mailbox.is_full)
        self._subscription = self.watch.subscribe(
            self._type, self._on_image, qos, callback_group=self._group
        )
        self._node.get_logger().info(f"Waiting for images on {self.topic}.")

    def unsubscribe(self) -> None:
        """Stop receiving images."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def abandon_take(self) -> list[str]:
        """Unsubscribe if receiving an image was aborted, count it as failed, return the topic."""
        if self._group is None or not self._group.is_taking:
            return []
        self.unsubscribe()
        self.mailbox.note_failure()
        return [self.topic]

    def explain_silence(self) -> str:
        """Explain why nothing arrives from existing publishers; empty if nothing is wrong."""
        return explain_silence(self._node, self.topic, self._type)

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp = self._node.get_clock().now().to_msg()
        self.mailbox.put(CameraFrame(message, stamp, time.perf_counter()))


def wake_executor(node: Node) -> None:
    """Make a node's executor check again what it may execute; callable from any thread."""
    if node.executor is not None:
        node.executor.wake()


class BackpressureGroup(MutuallyExclusiveCallbackGroup):
    """Lets the executor take a message only while there is room for it.

    This is backpressure without a waiting thread: untaken messages stay with the middleware, and
    parameters and services are still answered.
    """

    def __init__(self, is_full: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.is_taking = False  # stays true if taking a message raises
        self._is_full = is_full

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may take something from `entity`."""
        return not self._is_full() and super().can_execute(entity)

    def beginning_execution(self, entity: Any) -> bool:
        """Record that the executor is taking a message."""
        begins = super().beginning_execution(entity)
        self.is_taking = self.is_taking or begins
        return begins

    def ending_execution(self, entity: Any) -> None:
        """Record that the message has been handled."""
        super().ending_execution(entity)
        self.is_taking = False


def image_topic(
    node: Node, base: str, transport: str
) -> tuple[type[Image] | type[CompressedImage], str]:
    """Return the type and the name of the topic that carries a camera's images.

    Args:
        node: node that resolves the names.
        base: name of the raw image topic.
        transport: an image_transport plugin: `raw`, `compressed` or `compressedDepth`.
    """
    if transport == "raw":
        return Image, base
    # Resolved first: remapping `image` must also remap the compressed images of the camera.
    return CompressedImage, f"{node.resolve_topic_name(base)}/{transport}"


def image_qos(*, keeps_all: bool) -> QoSProfile:
    """Return a new QoS profile each time, because qos_overrides are written into it."""
    if keeps_all:  # for bags: the middleware stores what the node has not taken yet
        return QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)
    # Camera subscriptions are best effort (REP 2003). Depth 1: the stock profile's depth of
    # 5 makes each image 150 ms old at 30 Hz before the network sees it.
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
    )
