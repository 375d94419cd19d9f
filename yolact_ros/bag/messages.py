"""Define the messages of bags; convert them to images, and detections to messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from yolact_ros.errors import MessageError
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.images.encodings import bgr_of
from yolact_ros.runtime.output.annotations import make_annotations
from yolact_ros.runtime.output.draw import OVERLAY_FORMAT, draw_detections, encode_jpeg
from yolact_ros.runtime.output.instance_array import INSTANCE, INSTANCE_ARRAY, make_instance_array

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
LISTS = ("circles", "outline_colors", "metadata")  # of foxglove_msgs, left empty
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)


def read_message(data: bytes | memoryview, kind: str) -> Any:
    """Deserialize a message in CDR.

    Raises:
        MessageError: the message is damaged.
    """
    try:
        return typestore().deserialize_cdr(data, kind)
    except Exception as error:  # noqa: BLE001 - also errors of struct, numpy and unicode
        raise MessageError(f"The {kind} of {len(data)} bytes is damaged: {error}.") from None


def read_image(data: bytes | memoryview, kind: str) -> tuple[Any, np.ndarray]:
    """Read an image message.

    Args:
        data: message in CDR.
        kind: message type, one of `IMAGE_TYPES`.

    Returns:
        Header and pixels, (H, W, 3) uint8 BGR.

    Raises:
        MessageError: the message is damaged, or its encoding is not supported.
    """
    message = read_message(data, kind)
    return message.header, bgr_of(message)


def serialize_result(
    detections: Detections,
    class_names: Sequence[str],
    *,
    header: Any,
    keyframe_stamp: Any,
    mask_encoding: int,
) -> bytes:
    """Serialize the `InstanceArray` of one image in CDR, equal to the node's message.

    Args:
        detections: detections of the image; may be empty.
        class_names: class names of the model, in its order.
        header: header of the image; used unchanged.
        keyframe_stamp: stamp of the image that the deep features come from.
        mask_encoding: one of the `MASK_` values.
    """
    message = make_instance_array(
        typestore().types,
        detections,
        class_names,
        header=header,
        keyframe_stamp=keyframe_stamp,
        mask_encoding=mask_encoding,
        pack=lambda data: np.frombuffer(data, np.uint8),
    )
    return bytes(typestore().serialize_cdr(message, INSTANCE_ARRAY))


def serialize_annotations(
    detections: Detections, class_names: Sequence[str], *, header: Any
) -> bytes:
    """Serialize the outlines and names of one image as foxglove_msgs `ImageAnnotations` in CDR."""

    def new(name: str, **fields: Any) -> Any:
        kind: Any = typestore().types[f"foxglove_msgs/msg/{name}"]
        empty: dict[str, Any] = {key: [] for key in kind.__dataclass_fields__ if key in LISTS}
        return kind(**empty | fields)

    message = make_annotations(new, detections, class_names, header.stamp)
    return bytes(typestore().serialize_cdr(message, IMAGE_ANNOTATIONS))


def serialize_overlay(
    detections: Detections, class_names: Sequence[str], *, header: Any, image: np.ndarray
) -> bytes:
    """Serialize an image, (H, W, 3) uint8 BGR, with its detections as `CompressedImage` in CDR."""
    message = typestore().types[COMPRESSED_IMAGE](
        header=header,
        format=OVERLAY_FORMAT,
        data=encode_jpeg(draw_detections(image, detections, class_names)),
    )
    return bytes(typestore().serialize_cdr(message, COMPRESSED_IMAGE))


IMAGE_ANNOTATIONS = "foxglove_msgs/msg/ImageAnnotations"

# Equal to msg/, where each field is explained; needed because bags are also processed where pip
# installed this package without its messages. Fields end at semicolons.
DEFINITIONS = {
    INSTANCE: "uint8 MASK_NONE=0;uint8 MASK_BITS=1;uint8 MASK_MONO8=2;uint8 MASK_RLE=3;"
    "uint16 instance_id;uint32 track_id;uint16 class_id;string class_name;float32 score;"
    "float32 x_min;float32 y_min;float32 x_max;float32 y_max;uint32 area;"
    "sensor_msgs/RegionOfInterest roi;uint8 mask_encoding;uint8[] mask",
    INSTANCE_ARRAY: "uint8 KEYFRAME=0;uint8 PARTIAL=1;std_msgs/Header header;uint32 height;"
    "uint32 width;uint8 frame_type;builtin_interfaces/Time keyframe_stamp;Instance[] instances",
}
# Version 3.4 of foxglove_msgs; https://docs.foxglove.dev/docs/sdk/schemas/image-annotations
FOXGLOVE_DEFINITIONS = {
    "foxglove_msgs/msg/KeyValuePair": "string key;string value",
    "foxglove_msgs/msg/Point2": "float64 x;float64 y",
    "foxglove_msgs/msg/Color": "float64 r;float64 g;float64 b;float64 a",
    "foxglove_msgs/msg/CircleAnnotation": "builtin_interfaces/Time timestamp;Point2 position;"
    "float64 diameter;float64 thickness;Color fill_color;Color outline_color;"
    "KeyValuePair[] metadata",
    "foxglove_msgs/msg/PointsAnnotation": "uint8 UNKNOWN=0;uint8 POINTS=1;uint8 LINE_LOOP=2;"
    "uint8 LINE_STRIP=3;uint8 LINE_LIST=4;builtin_interfaces/Time timestamp;uint8 type;"
    "Point2[] points;Color outline_color;Color[] outline_colors;Color fill_color;"
    "float64 thickness;KeyValuePair[] metadata",
    "foxglove_msgs/msg/TextAnnotation": "builtin_interfaces/Time timestamp;Point2 position;"
    "string text;float64 font_size;Color text_color;Color background_color;"
    "KeyValuePair[] metadata",
    IMAGE_ANNOTATIONS: "builtin_interfaces/Time timestamp;CircleAnnotation[] circles;"
    "PointsAnnotation[] points;TextAnnotation[] texts;KeyValuePair[] metadata",
}


@cache
def typestore() -> Typestore:
    """Return the types that can be read from and written to bags."""
    store = get_typestore(Stores.LATEST)
    for name, text in {**DEFINITIONS, **FOXGLOVE_DEFINITIONS}.items():
        store.register(get_types_from_msg(text.replace(";", "\n"), name))
    return store
