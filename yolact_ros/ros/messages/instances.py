"""Convert detections to `InstanceArray` messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from yolact_ros.msg import Instance, InstanceArray
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.instance_fields import instance_fields
from yolact_ros.runtime.output.mask_encodings import encode_mask

FRAME_TYPES = {"keyframe": InstanceArray.KEYFRAME, "partial": InstanceArray.PARTIAL}


def message_from_detections(
    detections: Detections,
    class_names: Sequence[str],
    *,
    header: Header,
    keyframe_stamp: Time,
    mask_encoding: int,
) -> InstanceArray:
    """Build the message of one image.

    Args:
        detections: detections of that image; may be empty.
        class_names: class names of the model, in order.
        header: header of the image, used as is.
        keyframe_stamp: stamp of the image that the features or detections come from.
        mask_encoding: one of the `Instance.MASK_` values.
    """
    height, width = detections.image_size
    return InstanceArray(
        header=header,
        height=height,
        width=width,
        frame_type=FRAME_TYPES[detections.frame_type],
        keyframe_stamp=keyframe_stamp,
        instances=[
            _instance(fields, mask_encoding) for fields in instance_fields(detections, class_names)
        ],
    )


def _instance(fields: dict[str, Any], mask_encoding: int) -> Instance:
    roi, mask = fields.pop("roi"), fields.pop("mask")
    instance = Instance(**fields, roi=RegionOfInterest(**roi), mask_encoding=mask_encoding)
    # One memory copy; assigning bytes or an array checks each element.
    instance.mask.frombytes(encode_mask(mask, mask_encoding))
    return instance
