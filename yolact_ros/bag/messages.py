"""Images out of serialized messages, and messages made from detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolact_ros.bag.definitions import INSTANCE_ARRAY, typestore
from yolact_ros.errors import MessageError
from yolact_ros.runtime.detections import KEYFRAME, Detections
from yolact_ros.runtime.images.compressed import bgr_from_compressed
from yolact_ros.runtime.images.encodings import bgr_from_samples
from yolact_ros.runtime.output.mask_encodings import encode_mask

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)


def read_message(data: bytes | memoryview, kind: str) -> Any:
    """Read a message in CDR.

    Raises:
        MessageError: it is damaged.
    """
    try:
        return typestore().deserialize_cdr(data, kind)
    except Exception as error:  # noqa: BLE001 - the library lets struct, numpy, unicode errors out
        raise MessageError(f"The {kind} of {len(data)} bytes is damaged: {error}.") from None


def read_image(data: bytes | memoryview, kind: str) -> tuple[Any, np.ndarray]:
    """Read an image message.

    Args:
        data: the message in CDR.
        kind: its type, one of `IMAGE_TYPES`.

    Returns:
        Its header and its pixels, (H, W, 3) uint8 BGR.

    Raises:
        MessageError: it is damaged, or its encoding is not supported.
    """
    message = read_message(data, kind)
    if kind == COMPRESSED_IMAGE:
        return message.header, bgr_from_compressed(message.data, message.format)
    image = bgr_from_samples(
        message.data,
        message.encoding,
        height=message.height,
        width=message.width,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
    )
    return message.header, image


def seconds_of(stamp: Any) -> float | None:
    """A stamp in seconds; None for the zero of a camera that does not stamp its images."""
    seconds = float(stamp.sec + stamp.nanosec * 1e-9)
    return seconds or None


def serialize_result(
    detections: Detections,
    class_names: Sequence[str],
    *,
    header: Any,
    keyframe_stamp: Any,
    mask_encoding: int,
) -> bytes:
    """Make the `InstanceArray` of one image, in CDR; equal to the node's.

    Args:
        detections: of that image; may be empty.
        class_names: of the model, in its order.
        header: of the image; used as it is.
        keyframe_stamp: stamp of the image that the deep features come from.
        mask_encoding: one of the `MASK_` values of `runtime.mask_encodings`.
    """
    store = typestore()
    height, width = detections.image_size
    best_first = np.argsort(-detections.mask_scores, kind="stable")
    message = store.types[INSTANCE_ARRAY](
        header=header,
        height=height,
        width=width,
        frame_type=0 if detections.frame_type == KEYFRAME else 1,
        keyframe_stamp=keyframe_stamp,
        instances=[
            _instance(detections, int(index), number, class_names, mask_encoding)
            for number, index in enumerate(best_first, start=1)
        ],
    )
    return bytes(store.serialize_cdr(message, INSTANCE_ARRAY))


def _instance(
    detections: Detections,
    index: int,
    number: int,
    class_names: Sequence[str],
    mask_encoding: int,
) -> Any:
    types = typestore().types
    mask = detections.masks[index]
    left, top, right, bottom = detections.mask_rois[index].tolist()
    x_min, y_min, x_max, y_max = detections.boxes[index].tolist()
    return types["yolact_ros/msg/Instance"](
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
        roi=types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=left, y_offset=top, height=bottom - top, width=right - left, do_rectify=False
        ),
        mask_encoding=mask_encoding,
        mask=np.frombuffer(encode_mask(mask, mask_encoding), np.uint8),
    )
