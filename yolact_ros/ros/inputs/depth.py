"""Subscribe to depth images and calibration of a camera while its 3-D topics are in demand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from yolact_ros.errors import MessageError
from yolact_ros.ros.inputs.camera import BackpressureGroup, image_qos, image_topic, wake_executor
from yolact_ros.ros.inputs.graph import explain_silence
from yolact_ros.ros.inputs.qos import SubscriptionEventCallbacks, SubscriptionWatch
from yolact_ros.ros.inputs.stamp_matcher import StampMatcher
from yolact_ros.ros.parameters.settings import DepthSettings
from yolact_ros.runtime.depth.images import PREFIX, intrinsics_of, metres_of
from yolact_ros.runtime.depth.objects import DepthView, Intrinsics, pixel_rays, view_of
from yolact_ros.runtime.images.headers import read_header
from yolact_ros.runtime.stamps import nanoseconds

DEPTH = "depth/image"
CAMERA_INFO = "camera_info"
LOOK_S = 0.5  # interval of the checks for subscribers
THROTTLE_S = 5.0


class DepthInput:
    """Subscribes to `depth/image` and `camera_info` of one camera on demand."""

    def __init__(
        self,
        node: Node,
        camera: str,
        *,
        keeps_all: bool,
        needs_depth: Callable[[], bool],
        needs_info: Callable[[], bool],
        transport: str = "raw",
    ) -> None:
        """Create the input, which checks for subscribers every `LOOK_S` seconds.

        Where rclpy has matched events, `follow_demand` reacts to new subscribers at once.

        Args:
            node: node that owns the subscriptions.
            camera: name of the camera, the prefix of the topic names; may be empty.
            keeps_all: whether every image of the camera, and so every depth image, must be kept.
            needs_depth: returns whether a topic that needs depth has a subscriber.
            needs_info: returns whether a topic that needs the calibration has a subscriber.
            transport: transport of the depth images, `raw` or `compressedDepth`.
        """
        prefix = f"{camera}/" if camera else ""
        info = prefix + CAMERA_INFO
        self._kind, depth = image_topic(node, prefix + DEPTH, transport)
        self._node = node
        # Whether it is wanted, the message type and the callback of each topic.
        self._topics: dict[str, tuple[Callable[[], bool], type, Callable[[Any], None]]] = {
            depth: (needs_depth, self._kind, self._on_depth),
            info: (needs_info, CameraInfo, self._on_info),
        }
        self._topic = node.resolve_topic_name(depth)
        self._info_topic = node.resolve_topic_name(info)
        self._subscriptions: dict[str, Any] = {}
        self._groups: dict[str, BackpressureGroup] = {}  # callback groups by topic
        self._latched: Any = None  # a second subscription to the calibration
        self._lock = threading.Lock()  # the executor and transitions may run in different threads
        self._closed = False
        self._keeps_all = keeps_all
        self._images = self._new_matcher()
        self._info: CameraInfo | None = None
        self._rays: tuple[Intrinsics, np.ndarray] | None = None
        self._unpublished = False  # whether the missing publisher has been logged
        # Steady, because a paused bag or simulation must not stop it.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(LOOK_S, self.follow_demand, clock=steady)

    @property
    def info(self) -> CameraInfo | None:
        """Return the latest calibration; None before the first one."""
        return self._info

    def close(self) -> None:
        """Unsubscribe and wake all waiting threads."""
        self._node.destroy_timer(self._timer)
        with self._lock:
            self._closed = True
            self._images.close()
            for subscription in self._subscriptions.values():
                self._node.destroy_subscription(subscription)
            self._subscriptions = {}
            self._unlatch()

    def expect(self, stamp: Time, *, settings: DepthSettings) -> None:
        """Announce the image that is processed next."""
        self._images.expect(nanoseconds(stamp), tolerance=round(settings.depth_tolerance * 1e9))

    def view(
        self, stamp: Time, image_size: tuple[int, int], *, settings: DepthSettings
    ) -> DepthView | None:
        """Call `find`; if there is no depth, log the reason and return None."""
        try:
            view = self.find(stamp, image_size, settings=settings)
        except MessageError as error:
            if not self._node.count_publishers(self._topic):
                if not self._unpublished:
                    self._node.get_logger().info(
                        f"No 3-D results: nobody publishes depth images on {self._topic}. "
                        + self._explain_silence()
                    )
                self._unpublished = True
                return None
            self._node.get_logger().warning(
                f"No 3-D results: {error}", throttle_duration_sec=THROTTLE_S
            )
            return None
        self._unpublished = False
        return view

    def find(
        self, stamp: Time, image_size: tuple[int, int], *, settings: DepthSettings
    ) -> DepthView:
        """Return the depth of an image; must be called by one thread only.

        Waits at most `settings.depth_wait` seconds, and not at all if the topic has no publisher.

        Args:
            stamp: stamp of the image.
            image_size: (height, width) of the image.
            settings: how to match and decode it.

        Raises:
            MessageError: no depth image matches, or it does not fit the image or the calibration.
        """
        publishers = self._node.count_publishers(self._topic)
        message = self._images.take(
            nanoseconds(stamp),
            tolerance=round(settings.depth_tolerance * 1e9),
            timeout=settings.depth_wait if publishers else 0.0,
        )
        if message is None:
            advice = self._explain_silence() or (
                "Increase depth_wait if depth arrives late, or depth_tolerance if its stamps "
                "differ."
            )
            raise MessageError(
                f"No depth image on {self._topic} has the stamp of the image ({publishers} "
                f"publishers, waited {settings.depth_wait:g} s). {advice}"
            )
        if self._info is None:
            raise MessageError(
                f"There is a depth image, but no camera info on {self._info_topic} "
                f"({self._node.count_publishers(self._info_topic)} publishers)."
            )
        height, width = size_of(message) or image_size
        if (height, width) != image_size:  # before memory is allocated for it
            raise MessageError(
                f"The depth image on {self._topic} is {width}x{height}, but the image is "
                f"{image_size[1]}x{image_size[0]}; publish depth that is registered to the image "
                "(aligned; see depth_image_proc)."
            )
        metres = metres_of(message, unit=settings.depth_unit, longest=settings.depth_max)
        info = self._info
        if (info.height, info.width) != metres.shape:
            raise MessageError(
                f"The camera info on {self._info_topic} is for images of {info.width}x"
                f"{info.height}, but the depth image is {width}x{height}."
            )
        intrinsics = intrinsics_of(info, rectified=settings.rectified)
        if self._rays is None or self._rays[0] != intrinsics:
            self._rays = intrinsics, pixel_rays(intrinsics)
        return view_of(metres, self._rays[1])

    def abandon_take(self) -> list[str]:
        """Unsubscribe topics whose take was aborted, until the next check; return the topics."""
        with self._lock:
            broken = [t for t in self._subscriptions if self._groups[t].is_taking]
            for topic in broken:
                self._unsubscribe(topic)
        return [self._node.resolve_topic_name(topic) for topic in broken]

    def _explain_silence(self) -> str:
        return explain_silence(self._node, self._topic, self._kind, parameter="depth_transport")

    def follow_demand(self) -> None:
        """Subscribe to exactly what is needed; called by the executor."""
        with self._lock:
            if not self._closed:
                self._follow()

    def _follow(self) -> None:
        for topic, (wanted, kind, callback) in self._topics.items():
            is_wanted, is_depth = wanted(), kind is not CameraInfo
            if is_wanted and topic not in self._subscriptions:
                # A new profile each time, because qos_overrides are written into it.
                qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
                if self._keeps_all and is_depth:
                    qos = image_qos(keeps_all=True)
                group = BackpressureGroup()
                if is_depth:
                    group = BackpressureGroup(lambda: self._images.is_full)
                watch = SubscriptionWatch(self._node, topic)
                self._groups[topic] = group
                self._subscriptions[topic] = watch.subscribe(
                    kind, callback, qos, callback_group=group
                )
            elif not is_wanted and topic in self._subscriptions:
                self._unsubscribe(topic)
            if is_wanted and not is_depth and self._latched is None:
                self._latch(topic)

    def _unsubscribe(self, topic: str) -> None:
        self._node.destroy_subscription(self._subscriptions.pop(topic))
        if self._topics[topic][1] is CameraInfo:
            self._unlatch()
        else:
            self._images = self._new_matcher()  # frees the depth images

    def _latch(self, topic: str) -> None:
        """Also subscribe with transient local durability if calibration is published that way.

        A transient local subscription matches no volatile publisher; a volatile one gets nothing
        published before it. So both are needed, but a driver with a volatile publisher would warn
        about the transient local one, which is therefore created only for publishers that latch.
        """
        name = self._node.resolve_topic_name(topic)
        publishers = self._node.get_publishers_info_by_topic(name)
        durabilities = {publisher.qos_profile.durability for publisher in publishers}
        if DurabilityPolicy.TRANSIENT_LOCAL not in durabilities:
            return
        self._latched = self._node.create_subscription(
            CameraInfo,
            topic,
            self._on_info,
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
            callback_group=self._groups[topic],
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )

    def _unlatch(self) -> None:
        if self._latched is not None:
            self._node.destroy_subscription(self._latched)
            self._latched = None

    def _new_matcher(self) -> StampMatcher[Image | CompressedImage]:
        return StampMatcher(
            on_room=partial(wake_executor, self._node) if self._keeps_all else None
        )

    def _on_depth(self, message: Image | CompressedImage) -> None:
        self._images.put(nanoseconds(message.header.stamp), message)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message


def size_of(message: Image | CompressedImage) -> tuple[int, int] | None:
    """Return the (height, width) of a depth image; None if its header is invalid."""
    if not isinstance(message, CompressedImage):
        return message.height, message.width
    header = read_header(bytes(message.data[PREFIX.size :]))
    return None if header is None else (header.height, header.width)
