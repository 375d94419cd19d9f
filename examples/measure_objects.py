#!/usr/bin/env python3
"""Subscribe to /yolact/instances, and print the size and angle of every object in pixels."""

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from yolact_ros.msg import InstanceArray
from yolact_ros.ros.messages.instances import mask_from_message


class ObjectMeasurer(Node):
    """Prints the length, width and angle of the smallest rectangle around each mask."""

    def __init__(self) -> None:
        super().__init__("measure_objects")
        self.create_subscription(InstanceArray, "/yolact/instances", self.on_instances, 10)

    def on_instances(self, message: InstanceArray) -> None:
        """Measure the objects of one image."""
        for instance in message.instances:
            rows, columns = np.nonzero(mask_from_message(instance))
            if not len(rows):
                continue
            points = np.stack([columns, rows], axis=1).astype(np.float32)
            (x, y), (width, height), angle = cv2.minAreaRect(points)
            if width < height:
                width, height, angle = height, width, angle + 90
            self.get_logger().info(
                f"{instance.class_name} {instance.track_id}: {width:.0f} x {height:.0f} pixels, "
                f"{angle % 180:.0f} degrees, at ({instance.roi.x_offset + x:.0f}, "
                f"{instance.roi.y_offset + y:.0f})"
            )


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    node = ObjectMeasurer()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
