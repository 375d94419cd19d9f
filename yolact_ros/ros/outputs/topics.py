"""List the result topics: their names, types, QoS and message builders."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from yolact_ros.msg import InstanceArray
from yolact_ros.ros.messages.images import bgr_from_message, message_from_labels
from yolact_ros.ros.messages.instances import message_from_detections
from yolact_ros.ros.messages.markers import markers_message
from yolact_ros.ros.messages.points import cloud_message, points_message
from yolact_ros.ros.outputs.result import Result
from yolact_ros.runtime.output.annotations import make_annotations
from yolact_ros.runtime.output.draw import (
    OVERLAY_FORMAT,
    class_image,
    confidence_image,
    encode_jpeg,
)
from yolact_ros.runtime.output.instance_array import MASK_ENCODINGS

# Reliable and volatile, which matches both reliable and best-effort subscribers.
RESULT_QOS = QoSProfile(depth=5)
IMAGE_QOS = QoSProfile(depth=1)
LATCHED_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

STATS = "~/stats"
LABEL_INFO = "~/label_info"

HAS_VISION_MSGS = importlib.util.find_spec("vision_msgs") is not None
HAS_FOXGLOVE_MSGS = importlib.util.find_spec("foxglove_msgs") is not None


@dataclass(frozen=True, eq=False)
class Topic:
    """Describes one topic.

    Attributes:
        name: relative to the node, such as `~/instances`.
        kind: message type.
        make: builds the message of one image; None if there is nothing to publish.
        qos: QoS of the publisher.
    """

    name: str
    kind: type[Any]
    make: Callable[[Result], Any]
    qos: QoSProfile


def _instances(result: Result) -> InstanceArray:
    return message_from_detections(
        result.detections,
        result.class_names,
        header=result.header,
        keyframe_stamp=result.keyframe_stamp,
        mask_encoding=MASK_ENCODINGS[result.mask_encoding],
    )


def _compressed_overlay(result: Result) -> CompressedImage:
    message = CompressedImage(header=result.header, format=OVERLAY_FORMAT)
    message.data.frombytes(encode_jpeg(bgr_from_message(result.overlay)).data)
    return message


def _annotations(result: Result) -> Any:
    from foxglove_msgs import msg

    return make_annotations(
        lambda name, **fields: getattr(msg, name)(**fields),
        result.detections,
        result.class_names,
        result.header.stamp,
    )


def _instance_image(result: Result) -> Image:
    return message_from_labels(result.instance_image, result.header)


def _class_image(result: Result) -> Image:
    return message_from_labels(class_image(result.detections), result.header)


def _confidence_image(result: Result) -> Image:
    image = confidence_image(result.detections, background=result.background_score)
    return message_from_labels(image, result.header)


def _camera_info(result: Result) -> CameraInfo | None:
    if result.camera_info is None:
        return None
    info = copy.copy(result.camera_info)
    info.header = result.header
    return info


def image_topics() -> list[Topic]:
    """List the topics that need only the image and its detections, `~/instances` first."""
    topics = [Topic("~/instances", InstanceArray, _instances, RESULT_QOS)]
    if HAS_VISION_MSGS:
        from yolact_ros.ros.messages import vision

        make = vision.detections_message
        topics.append(Topic("~/detections", vision.Detection2DArray, make, RESULT_QOS))
    if HAS_FOXGLOVE_MSGS:
        from foxglove_msgs import msg

        topics.append(Topic("~/annotations", msg.ImageAnnotations, _annotations, RESULT_QOS))
    return [
        *topics,
        Topic("~/instance_image", Image, _instance_image, IMAGE_QOS),
        Topic("~/class_image", Image, _class_image, IMAGE_QOS),
        Topic("~/confidence_image", Image, _confidence_image, IMAGE_QOS),
        Topic("~/overlay", Image, lambda result: result.overlay, IMAGE_QOS),
        Topic("~/overlay/compressed", CompressedImage, _compressed_overlay, IMAGE_QOS),
    ]


def camera_info_topic() -> Topic:
    """Return the topic of the calibration, republished with the header of each image."""
    return Topic("~/camera_info", CameraInfo, _camera_info, RESULT_QOS)


def space_topics() -> list[Topic]:
    """List the 3-D topics, which need depth as well and may have to wait for it."""
    topics = [
        Topic("~/points", PointCloud2, points_message, IMAGE_QOS),
        Topic("~/cloud", PointCloud2, cloud_message, IMAGE_QOS),
        Topic("~/markers", MarkerArray, markers_message, RESULT_QOS),
    ]
    if HAS_VISION_MSGS:
        from yolact_ros.ros.messages import vision

        make = vision.detections_3d_message
        topics.append(Topic("~/detections_3d", vision.Detection3DArray, make, RESULT_QOS))
    return topics
