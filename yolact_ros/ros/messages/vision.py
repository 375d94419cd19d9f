"""Convert detections to vision_msgs 4 (ROS 2 Humble and later)."""

from __future__ import annotations

from collections.abc import Sequence

from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    VisionClass,
)

from yolact_ros.ros.outputs.result import Result

BACKGROUND = "background"


def label_info(class_names: Sequence[str], *, threshold: float) -> LabelInfo:
    """Map the class ids of all topics of the node to names; 0 is the background.

    Args:
        class_names: class names of the model, in order; the first has class id 1.
        threshold: class score above which objects are reported.
    """
    return LabelInfo(
        class_map=[
            VisionClass(class_id=label, class_name=name)
            for label, name in enumerate([BACKGROUND, *class_names])
        ],
        threshold=threshold,
    )


def hypotheses(result: Result, index: int) -> list[ObjectHypothesisWithPose]:
    """Return the class of a detection; its id is a decimal number, as in `label_info`."""
    hypothesis = ObjectHypothesis(
        class_id=str(result.detections.labels[index]),
        score=float(result.detections.mask_scores[index]),
    )
    return [ObjectHypothesisWithPose(hypothesis=hypothesis)]


def track_name(result: Result, index: int) -> str:
    """Return the track id as a decimal number; empty if there is none."""
    ids = result.detections.track_ids
    return "" if ids is None or not ids[index] else str(ids[index])


def detections_message(result: Result) -> Detection2DArray:
    """Build the boxes of one image in pixels, best first as in `~/instances`."""
    return Detection2DArray(
        header=result.header,
        detections=[_detection(result, i) for i in result.detections.best_first],
    )


def _detection(result: Result, index: int) -> Detection2D:
    x_min, y_min, x_max, y_max = result.detections.boxes[index].tolist()
    detection = Detection2D(
        header=result.header, results=hypotheses(result, index), id=track_name(result, index)
    )
    detection.bbox.center.position.x = (x_min + x_max) / 2
    detection.bbox.center.position.y = (y_min + y_max) / 2
    detection.bbox.size_x = x_max - x_min
    detection.bbox.size_y = y_max - y_min
    return detection


def detections_3d_message(result: Result) -> Detection3DArray | None:
    """Build the 3-D boxes in metres in the camera's optical frame; None if there is no depth.

    A box encloses the visible side of its object; `results[0].pose` is the centroid of that side.
    """
    if result.poses is None:
        return None
    message = Detection3DArray(header=result.header)
    for index in result.detections.best_first:
        pose = result.poses[index]
        if pose is None:
            continue
        detection = Detection3D(
            header=result.header, results=hypotheses(result, index), id=track_name(result, index)
        )
        centroid = detection.results[0].pose.pose.position
        centroid.x, centroid.y, centroid.z = pose.centroid.tolist()
        centre, size = detection.bbox.center.position, detection.bbox.size
        centre.x, centre.y, centre.z = ((pose.low + pose.high) / 2).tolist()
        size.x, size.y, size.z = (pose.high - pose.low).tolist()
        message.detections.append(detection)
    return message
