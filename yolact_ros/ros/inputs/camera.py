"""One camera: its subscription, and the images that wait for the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
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
    """One image as it arrived.

    Attributes:
        message: the image.
        stamp: the node's clock at its arrival.
        arrived: `time.perf_counter()` at its arrival.
    """

    message: Image | CompressedImage
    stamp: Time
    arrived: float


class CameraInput:
    """Puts the images of one camera into its mailbox while it is subscribed.

    Attributes:
        name: of the camera; empty for the only one.
        topic: full name of the image topic.
        mailbox: of the images; its counts are the accounts of all of them.
        watch: on what the middleware tells about the subscription.
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
        self._group: WhileThereIsRoom | None = None
        keep = settings.queue_size if self._keeps_all else 0
        self.mailbox: Mailbox[CameraFrame] = inbox.new_mailbox(keep=keep, on_room=self._on_room)

    @property
    def lost(self) -> int:
        """Images that the middleware reported lost since the node started."""
        return self.watch.lost

    def subscribe(self) -> None:
        """Take images from now on, if they are not taken already."""
        if self._subscription is not None:
            return
        qos = image_qos(keeps_all=self._keeps_all)
        self._group = WhileThereIsRoom(lambda: self.mailbox.is_full)
        self._subscription = self.watch.subscribe(
            self._type, self._on_image, qos, callback_group=self._group
        )
        self._node.get_logger().info(f"Waiting for images on {self.topic}.")

    def unsubscribe(self) -> None:
        """Take no more images."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def abandon_take(self) -> list[str]:
        """Unsubscribe if taking an image broke off, and count it as failed; return the topic."""
        if self._group is None or not self._group.is_taking:
            return []
        self.unsubscribe()
        self.mailbox.note_failure()
        return [self.topic]

    def explain_silence(self) -> str:
        """Explain why the graph's publishers cannot be heard; empty if nothing is wrong."""
        return explain_silence(self._node, self.topic, self._type)

    def _on_image(self, message: Image | CompressedImage) -> None:
        stamp = self._node.get_clock().now().to_msg()
        self.mailbox.put(CameraFrame(message, stamp, time.perf_counter()))

    def _on_room(self) -> None:
        if self._node.executor is not None:
            self._node.executor.wake()


class WhileThereIsRoom(MutuallyExclusiveCallbackGroup):
    """Lets the executor take a message only when there is a place for it.

    Back-pressure without a thread that waits: what the executor does not take stays with the
    middleware, and parameters and services are answered meanwhile.
    """

    def __init__(self, is_full: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.is_taking = False  # stays true if taking a message raises
        self._is_full = is_full

    def can_execute(self, entity: Any) -> bool:
        """Whether the executor may take something from `entity`."""
        return not self._is_full() and super().can_execute(entity)

    def beginning_execution(self, entity: Any) -> bool:
        """Note that the executor takes a message."""
        begins = super().beginning_execution(entity)
        self.is_taking = self.is_taking or begins
        return begins

    def ending_execution(self, entity: Any) -> None:
        """Note that the message has been handled."""
        super().ending_execution(entity)
        self.is_taking = False


def image_topic(
    node: Node, base: str, transport: str
) -> tuple[type[Image] | type[CompressedImage], str]:
    """Type and name of the topic that carries a camera's images.

    Args:
        node: whose names they are.
        base: name of the raw images.
        transport: a plugin of image_transport: `raw`, `compressed` or `compressedDepth`.
    """
    if transport == "raw":
        return Image, base
    # Resolved first: a user who remaps `image` means the camera's compressed images, too.
    return CompressedImage, f"{node.resolve_topic_name(base)}/{transport}"


def image_qos(*, keeps_all: bool) -> QoSProfile:
    """QoS of an image subscription; a new one each time, for qos_overrides are written into it."""
    if keeps_all:  # for bags: the middleware holds what the node does not take yet
        return QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)
    # Cameras are best effort for their readers (REP 2003). Depth 1: the stock profile's depth of
    # 5 makes each image 150 ms old at 30 Hz before the network sees it.
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
    )
