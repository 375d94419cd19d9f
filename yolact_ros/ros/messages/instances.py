"""Convert detections to `InstanceArray` messages."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from builtin_interfaces.msg import Time
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from yolact_ros.msg import Instance, InstanceArray
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.instance_array import (
    INSTANCE,
    INSTANCE_ARRAY,
    REGION,
    make_instance_array,
)

TYPES = {INSTANCE_ARRAY: InstanceArray, INSTANCE: Instance, REGION: RegionOfInterest}


def message_from_detections(
    detections: Detections,
    class_names: Sequence[str],
    *,
    header: Header,
    keyframe_stamp: Time,
    mask_encoding: int,
) -> InstanceArray:
    """Build the message of one image; see `make_instance_array`."""
    message: InstanceArray = make_instance_array(
        TYPES,
        detections,
        class_names,
        header=header,
        keyframe_stamp=keyframe_stamp,
        mask_encoding=mask_encoding,
        pack=lambda data: array("B", data),  # other types are checked element by element
    )
    return message
