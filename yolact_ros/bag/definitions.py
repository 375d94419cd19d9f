"""Message types of bags: those of ROS 2 and of this package."""

from __future__ import annotations

from functools import cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

INSTANCE_ARRAY = "yolact_ros/msg/InstanceArray"

# Equal to msg/, where each field is explained; needed because bags are also processed where pip
# installed this package without its messages.
DEFINITIONS = {
    "yolact_ros/msg/Instance": """
uint8 MASK_NONE=0
uint8 MASK_BITS=1
uint8 MASK_MONO8=2
uint8 MASK_RLE=3
uint16 instance_id
uint32 track_id
uint16 class_id
string class_name
float32 score
float32 x_min
float32 y_min
float32 x_max
float32 y_max
uint32 area
sensor_msgs/RegionOfInterest roi
uint8 mask_encoding
uint8[] mask
""",
    INSTANCE_ARRAY: """
uint8 KEYFRAME=0
uint8 PARTIAL=1
std_msgs/Header header
uint32 height
uint32 width
uint8 frame_type
builtin_interfaces/Time keyframe_stamp
Instance[] instances
""",
}


@cache
def typestore() -> Typestore:
    """Return the types that can be read from and written to bags."""
    store = get_typestore(Stores.LATEST)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    return store
