"""Show 3-D boxes and labels of the objects in RViz."""

from __future__ import annotations

from visualization_msgs.msg import Marker, MarkerArray

from yolact_ros.ros.outputs.result import Result
from yolact_ros.runtime.depth.objects import ObjectPose3D
from yolact_ros.runtime.output.draw import class_colour

OPACITY = 0.35
TEXT_M = 0.03  # letter height
LEAST_SIDE_M = 0.001  # RViz does not draw a box without thickness


def markers_message(result: Result) -> MarkerArray | None:
    """Build a box and a label for each object, in the camera's optical frame; None without depth.

    The first marker deletes those of the previous message. The lifetime is unlimited, so that
    boxes neither blink at a low rate nor vanish before the points, which RViz also keeps.
    """
    if result.poses is None:
        return None
    markers = [Marker(header=result.header, action=Marker.DELETEALL)]
    for number, index in enumerate(result.detections.best_first, start=1):
        pose = result.poses[index]
        if pose is not None:
            markers += [_box(result, index, pose, number), _name(result, index, pose, number)]
    return MarkerArray(markers=markers)


def _box(result: Result, index: int, pose: ObjectPose3D, number: int) -> Marker:
    marker = Marker(header=result.header, ns="boxes", id=number, type=Marker.CUBE)
    blue, green, red = class_colour(int(result.detections.class_ids[index]))
    marker.color.r, marker.color.g, marker.color.b = red / 255, green / 255, blue / 255
    marker.color.a = OPACITY
    centre, sides = (pose.low + pose.high) / 2, pose.high - pose.low
    position, scale = marker.pose.position, marker.scale
    position.x, position.y, position.z = centre.tolist()
    scale.x, scale.y, scale.z = sides.clip(LEAST_SIDE_M).tolist()
    return marker


def _name(result: Result, index: int, pose: ObjectPose3D, number: int) -> Marker:
    marker = Marker(
        header=result.header,
        ns="names",
        id=number,
        type=Marker.TEXT_VIEW_FACING,
        text=result.name(index),
    )
    marker.color.r = marker.color.g = marker.color.b = marker.color.a = 1.0
    marker.scale.z = TEXT_M
    marker.scale.x = TEXT_M / 2  # RViz makes a space between words this wide
    centre = (pose.low + pose.high) / 2
    position = marker.pose.position
    position.x, position.z = float(centre[0]), float(centre[2])
    position.y = float(pose.low[1]) - TEXT_M  # above the box: y points down
    return marker
