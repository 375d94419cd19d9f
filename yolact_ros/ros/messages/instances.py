"""The conversion of detections into `InstanceArray` messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from yolact_ros.msg import Instance, InstanceArray
from yolact_ros.runtime.detections import Detections
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
    """Make the message of one image.

    Args:
        detections: of that image; may be empty.
        class_names: of the model, in its order.
        header: of the image; used as it is.
        keyframe_stamp: stamp of the image that the features or detections come from.
        mask_encoding: one of the `Instance.MASK_` values.
    """
    height, width = detections.image_size
    best_first = np.argsort(-detections.mask_scores, kind="stable")
    return InstanceArray(
        header=header,
        height=height,
        width=width,
        frame_type=FRAME_TYPES[detections.frame_type],
        keyframe_stamp=keyframe_stamp,
        instances=[
            _instance(detections, int(index), number, class_names, mask_encoding)
            for number, index in enumerate(best_first, start=1)
        ],
    )


def _instance(
    detections: Detections,
    index: int,
    number: int,
    class_names: Sequence[str],
    mask_encoding: int,
) -> Instance:
    mask = detections.masks[index]
    left, top, right, bottom = detections.mask_rois[index].tolist()
    x_min, y_min, x_max, y_max = detections.boxes[index].tolist()
    instance = Instance(
        instance_id=number,
        track_id=0 if detections.track_ids is None else int(detections.track_ids[index]),
        class_id=int(detections.labels[index]),
        class_name=class_names[detections.class_ids[index]],
        score=float(detections.mask_scores[index]),
        x_min=x_min,
        y_min=y_min,
        x_max=x_max,
        y_max=y_max,
        area=int(np.count_nonzero(mask)),
        roi=RegionOfInterest(x_offset=left, y_offset=top, height=bottom - top, width=right - left),
        mask_encoding=mask_encoding,
    )
    # One copy of memory; assigning bytes or an array checks each element.
    instance.mask.frombytes(encode_mask(mask, mask_encoding))
    return instance
