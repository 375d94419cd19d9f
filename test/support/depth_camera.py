"""Provide a depth camera for the client's camera, and a scene of known depth."""

from __future__ import annotations

import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

SIZE = (256, 256)
BOX = (32, 16, 96, 80)  # x1 y1 x2 y2 of the blue object, at 0.5 m; all else is at 2 m
FOCAL, CENTRE = 250.0, 128.0


class DepthCamera:
    """Publishes depth and calibration along with the client's images."""

    def __init__(self, client) -> None:
        self.client = client
        qos = QoSProfile(depth=1)
        self.depth = client.node.create_publisher(Image, "depth/image", qos)
        self.info = client.node.create_publisher(CameraInfo, "camera_info", qos)

    def connect(self) -> None:
        """Wait until the node has subscribed to both, which it does only on demand."""
        assert self.client.spin_until(
            lambda: self.depth.get_subscription_count() and self.info.get_subscription_count()
        )
        self.client.spin_until(lambda: False, 0.3)

    def send(self, header: Header, metres: np.ndarray, encoding: str) -> None:
        height, width = metres.shape
        info = CameraInfo(header=header, height=height, width=width, distortion_model="plumb_bob")
        info.k = [FOCAL, 0.0, CENTRE, 0.0, FOCAL, CENTRE, 0.0, 0.0, 1.0]
        self.info.publish(info)
        stored = metres.astype("<f4") if encoding == "32FC1" else np.rint(metres * 1000)
        data = stored.astype("<f4" if encoding == "32FC1" else "<u2")
        message = Image(header=header, height=height, width=width, encoding=encoding)
        message.step = width * data.itemsize
        message.data.frombytes(data.tobytes())
        self.depth.publish(message)


def scene() -> np.ndarray:
    metres = np.full(SIZE, 2.0)
    x1, y1, x2, y2 = BOX
    metres[y1:y2, x1:x2] = 0.5
    metres[::4, ::4] = 0.0  # unknown
    return metres
