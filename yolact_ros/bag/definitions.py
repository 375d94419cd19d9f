"""Define the message types of bags: those of ROS 2, of this package and of Foxglove."""

from __future__ import annotations

from functools import cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from yolact_ros.runtime.output.instance_array import INSTANCE, INSTANCE_ARRAY

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
