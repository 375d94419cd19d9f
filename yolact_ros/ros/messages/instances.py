"""Convert detections to `InstanceArray` messages, and decode their masks (msg/Instance.msg)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from yolact_ros.errors import MessageError
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


def mask_from_message(instance: Instance) -> np.ndarray:
    """Return the mask of one instance.

    Returns:
        (roi.height, roi.width) bool; its top left pixel is (roi.x_offset, roi.y_offset) of the
        source image.

    Raises:
        MessageError: the message has no mask, or its length does not match its region.
    """
    height, width = instance.roi.height, instance.roi.width
    encoding = instance.mask_encoding
    if encoding == Instance.MASK_NONE:
        raise MessageError(
            "This instance has no mask; set the node's parameter mask_encoding to "
            "bits, mono8 or rle."
        )
    data = np.frombuffer(bytes(instance.mask), np.uint8)
    if encoding == Instance.MASK_BITS:
        row_bytes = -(-width // 8)
        _expect(data.size, height * row_bytes, "bytes", instance)
        return np.unpackbits(data.reshape(height, row_bytes), axis=1, count=width).view(bool)
    if encoding == Instance.MASK_MONO8:
        _expect(data.size, height * width, "bytes", instance)
        return data.reshape(height, width) != 0
    if encoding == Instance.MASK_RLE:
        _expect(data.size % 4, 0, "bytes after the last run", instance)
        runs = data.view("<u4")
        _expect(int(runs.sum(dtype=np.uint64)), height * width, "pixels in its runs", instance)
        return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(height, width)
    raise MessageError(f"Mask encoding {encoding} is unknown; expected 0 to 3 (Instance.msg).")


def _expect(found: int, expected: int, what: str, instance: Instance) -> None:
    if found != expected:
        raise MessageError(
            f"The mask of instance {instance.instance_id} does not match its region of "
            f"{instance.roi.width}x{instance.roi.height} pixels: it has {found} {what}; "
            f"expected {expected}."
        )
