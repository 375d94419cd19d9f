#!/usr/bin/env python3
"""Subscribe to the 3-D boxes and report the nearest obstacle in front of a camera.

A planner does the same: it takes the boxes of the classes that matter, ignores what is beyond its
horizon or beside its corridor, and slows down for the nearest one. This program reads the boxes
from /yolact/markers, which needs no other package; if vision_msgs is installed,
/yolact/detections_3d has the same boxes. Both are in metres in the camera's optical frame (x
right, y down, z forward); use tf2 to transform them to a frame of the robot.

    obstacles.py --ros-args -p classes:=[mug,tray] -p horizon:=2.0 -p corridor:=0.6
"""

import re
from dataclasses import dataclass

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from visualization_msgs.msg import Marker, MarkerArray


@dataclass(frozen=True)
class Obstacle:
    """Describes a box by the distance of its near side and by its sides, in metres."""

    name: str
    distance: float
    left: float
    right: float


def obstacles(message: MarkerArray) -> list[Obstacle]:
    """Read the boxes of a message, nearest first."""
    # A name may start with the track id: "#3 dining table".
    names = {m.id: re.sub(r"^#\d+ ", "", m.text) for m in message.markers if m.ns == "names"}
    found = []
    for marker in message.markers:
        if marker.ns == "boxes" and marker.type == Marker.CUBE:
            centre, size = marker.pose.position, marker.scale
            found.append(
                Obstacle(
                    name=names[marker.id],
                    distance=centre.z - size.z / 2,
                    left=centre.x - size.x / 2,
                    right=centre.x + size.x / 2,
                )
            )
    return sorted(found, key=lambda obstacle: obstacle.distance)


class ObstacleWatcher(Node):
    """Reports the nearest obstacle inside a corridor in front of the camera."""

    def __init__(self) -> None:
        super().__init__("obstacles")
        self._classes = set(self.declare_parameter("classes", [""]).value) - {""}
        self._horizon = self.declare_parameter("horizon", 3.0).value
        self._corridor = self.declare_parameter("corridor", 1.0).value
        self.create_subscription(MarkerArray, "/yolact/markers", self.on_markers, 10)

    def on_markers(self, message: MarkerArray) -> None:
        """Report the nearest obstacle, or that the way is clear."""
        half = self._corridor / 2
        for obstacle in obstacles(message):
            matters = not self._classes or obstacle.name in self._classes
            inside = obstacle.left < half and obstacle.right > -half
            if matters and inside and obstacle.distance < self._horizon:
                self.get_logger().info(f"{obstacle.name} in {obstacle.distance:.2f} m")
                return
        self.get_logger().info("The way is clear.")


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    node = ObstacleWatcher()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
