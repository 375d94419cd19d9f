"""Encode masks and build `InstanceArray` messages, for ROS and for bags without ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from yolact_ros.runtime.detections import KEYFRAME, PARTIAL, Detections

# Values of `Instance.mask_encoding`.
MASK_NONE = 0
MASK_BITS = 1
MASK_MONO8 = 2
MASK_RLE = 3

# Value of the parameter `mask_encoding` -> value of the message field.
MASK_ENCODINGS = {"bits": MASK_BITS, "mono8": MASK_MONO8, "rle": MASK_RLE, "none": MASK_NONE}
INSTANCE_ARRAY = "yolact_ros/msg/InstanceArray"
INSTANCE = "yolact_ros/msg/Instance"
REGION = "sensor_msgs/msg/RegionOfInterest"
FRAME_TYPES = {KEYFRAME: 0, PARTIAL: 1}  # values of `InstanceArray.frame_type`


def encode_mask(mask: np.ndarray, encoding: int) -> bytes:
    """Encode a mask as the bytes of `Instance.mask`.

    Args:
        mask: (h, w) bool, only the region of interest; h or w may be 0.
        encoding: one of the `MASK_` values.

    Raises:
        ValueError: the encoding is unknown.
    """
    if encoding == MASK_NONE:
        return b""
    if encoding == MASK_BITS:
        return np.packbits(mask, axis=1).tobytes()
    if encoding == MASK_MONO8:
        return np.where(mask, np.uint8(255), np.uint8(0)).tobytes()
    if encoding == MASK_RLE:
        return _run_lengths(mask.ravel()).tobytes()
    raise ValueError(f"unknown mask encoding {encoding}")


def _run_lengths(pixels: np.ndarray) -> np.ndarray:
    """Encode (n,) bool as little-endian uint32 run lengths; the first run counts zeros."""
    if pixels.size == 0:
        return np.empty(0, "<u4")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(changes, prepend=0, append=pixels.size)
    if pixels[0]:
        runs = np.concatenate([[0], runs])
    return runs.astype("<u4")


def make_instance_array(
    types: Mapping[str, Callable[..., Any]],
    detections: Detections,
    class_names: Sequence[str],
    *,
    header: Any,
    keyframe_stamp: Any,
    mask_encoding: int,
    pack: Callable[[bytes], Any],
) -> Any:
    """Build the message of one image, best mask score first.

    Args:
        types: the three message types above by name.
        detections: detections of the image; may be empty.
        class_names: class names of the model, in order.
        header: header of the image, used as is.
        keyframe_stamp: stamp of the image that the features or detections come from.
        mask_encoding: one of the `MASK_` values.
        pack: converts the bytes of a mask to the array type of the messages.
    """

    def instance(number: int, index: int) -> Any:
        left, top, right, bottom = detections.mask_rois[index].tolist()
        corners = ("x_min", "y_min", "x_max", "y_max")
        mask = detections.masks[index]
        return types[INSTANCE](
            instance_id=number,
            track_id=0 if detections.track_ids is None else int(detections.track_ids[index]),
            class_id=int(detections.labels[index]),
            class_name=class_names[detections.class_ids[index]],
            score=float(detections.mask_scores[index]),
            **dict(zip(corners, detections.boxes[index].tolist(), strict=True)),
            area=int(np.count_nonzero(mask)),
            roi=types[REGION](
                x_offset=left,
                y_offset=top,
                height=bottom - top,
                width=right - left,
                do_rectify=False,
            ),
            mask_encoding=mask_encoding,
            mask=pack(encode_mask(mask, mask_encoding)),
        )

    height, width = detections.image_size
    return types[INSTANCE_ARRAY](
        header=header,
        height=height,
        width=width,
        frame_type=FRAME_TYPES[detections.frame_type],
        keyframe_stamp=keyframe_stamp,
        instances=[
            instance(number, index) for number, index in enumerate(detections.best_first, start=1)
        ],
    )
