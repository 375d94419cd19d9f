"""Find the depth of a bag's images by stamp."""

from __future__ import annotations

from typing import Any

from rosbags.rosbag2 import Reader

from yolact_ros.bag.files import find_connections, find_images, read_messages
from yolact_ros.bag.messages import read_message
from yolact_ros.errors import MessageError
from yolact_ros.runtime.depth.images import intrinsics_of, metres_of
from yolact_ros.runtime.depth.objects import DepthView, pixel_rays, view_of
from yolact_ros.runtime.stamps import nanoseconds

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


class BagDepth:
    """Steps through the depth images of a bag alongside the colour images."""

    def __init__(self, reader: Reader, depth: str, info: str, *, rectified: bool) -> None:
        """Read the calibration.

        Raises:
            DatasetError: the bag lacks a topic.
            MessageError: the calibration is damaged or invalid.
        """
        self._messages = read_messages(reader, find_images(reader, depth))
        self._next: tuple[int, Any] | None = None
        topics = find_connections(reader, info, [CAMERA_INFO], what="camera info")
        _, _, data = next(read_messages(reader, topics))
        self._rays = pixel_rays(
            intrinsics_of(read_message(data, CAMERA_INFO), rectified=rectified)
        )

    def find(self, stamp: int) -> DepthView:
        """Return the depth of an image; stamps must not decrease.

        Args:
            stamp: stamp of the image in nanoseconds.

        Raises:
            MessageError: no depth image has this stamp, or it is invalid.
        """
        while self._next is None or self._next[0] < stamp:
            try:
                connection, _, data = next(self._messages)
            except StopIteration:
                break
            message = read_message(data, connection.msgtype)
            self._next = nanoseconds(message.header.stamp), message
        if self._next is None or self._next[0] != stamp:
            raise MessageError("there is no depth image with its stamp.")
        metres = metres_of(self._next[1])
        if metres.shape != self._rays.shape[:2]:
            raise MessageError(
                f"its depth image is {metres.shape[1]}x{metres.shape[0]}, but the camera info is "
                f"for {self._rays.shape[1]}x{self._rays.shape[0]}."
            )
        return view_of(metres, self._rays)
