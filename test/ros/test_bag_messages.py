"""`yolact bag` writes the messages that the node publishes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rosbags")

from ament_index_python.packages import get_package_share_directory
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolact_ros.bag.messages import (
    DEFINITIONS,
    IMAGE,
    INSTANCE_ARRAY,
    read_image,
    serialize_result,
    typestore,
)
from yolact_ros.errors import MessageError
from yolact_ros.msg import InstanceArray
from yolact_ros.ros.messages.images import message_from_bgr
from yolact_ros.ros.messages.instances import message_from_detections
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.instance_array import MASK_ENCODINGS

HEADER = Header(stamp=Time(sec=12, nanosec=345678901), frame_id="front")


def detections(count: int) -> Detections:
    rng = np.random.default_rng(count)
    return Detections(
        boxes=rng.uniform(0, 40, (count, 4)).astype(np.float32),
        scores=rng.random(count).astype(np.float32),
        mask_scores=rng.random(count).astype(np.float32),
        class_ids=np.arange(count) % 2,
        mask_rois=np.tile(np.int32([3, 4, 14, 11]), (count, 1)),
        masks=tuple(rng.random((count, 7, 11)) > 0.5),
        image_size=(48, 64),
        frame_type="partial" if count else "keyframe",
    )


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("encoding", MASK_ENCODINGS)
def test_results_have_the_bytes_of_the_nodes_messages(count, encoding):
    found, names = detections(count), ("cup", "spoon")
    stamp = Time(sec=11, nanosec=5)
    image = message_from_bgr(np.zeros((48, 64, 3), np.uint8), HEADER)
    header, _ = read_image(serialize_message(image), IMAGE)
    keyframe_stamp = typestore().types["builtin_interfaces/msg/Time"](sec=11, nanosec=5)
    number = MASK_ENCODINGS[encoding]
    expected = message_from_detections(
        found, names, header=HEADER, keyframe_stamp=stamp, mask_encoding=number
    )
    written = serialize_result(
        found, names, header=header, keyframe_stamp=keyframe_stamp, mask_encoding=number
    )
    assert deserialize_message(written, InstanceArray) == expected
    # Fast DDS leaves the bytes between fields unset, so the message is serialized again.
    store = typestore()
    again = store.deserialize_cdr(serialize_message(expected), INSTANCE_ARRAY)
    assert written == bytes(store.serialize_cdr(again, INSTANCE_ARRAY))


def test_images_are_read_from_serialized_messages():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = serialize_message(message_from_bgr(image, HEADER))
    header, pixels = read_image(data, IMAGE)
    assert (header.frame_id, header.stamp.nanosec) == ("front", 345678901)
    assert np.array_equal(pixels, image)
    with pytest.raises(MessageError, match="is damaged"):
        read_image(data[:30], IMAGE)


def test_an_empty_image_message_is_refused():
    with pytest.raises(MessageError, match=r"''.* is not supported"):
        read_image(serialize_message(Image()), IMAGE)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_types_have_the_hashes_that_ros_gives_them(name):
    file = Path(get_package_share_directory("yolact_ros"), f"{name.partition('/')[2]}.json")
    if not file.exists():
        pytest.skip("the messages were built without hashes, as on Humble")
    entries = json.loads(file.read_text())["type_hashes"]
    hashes = {entry["type_name"]: entry["hash_string"] for entry in entries}
    assert typestore().hash_rihs01(name) == hashes[name]
