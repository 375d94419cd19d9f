from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from full_masks import full_mask_from_message
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from yolact_ros.msg import Instance, InstanceArray
from yolact_ros.ros.messages.instances import message_from_detections
from yolact_ros.runtime.detections import Detections

NAMES = ("mug", "duck", "tray")
HEADER = Header(stamp=Time(sec=1700000000, nanosec=123456789), frame_id="front_optical_frame")
KEYFRAME_STAMP = Time(sec=1699999999, nanosec=5)


def detections() -> Detections:
    random = np.random.default_rng(5)
    return Detections(
        boxes=np.array([[1.5, 2, 8.25, 9], [0, 0, 4, 3], [5, 5, 5, 5]], np.float32),
        scores=np.array([0.9, 0.8, 0.7], np.float32),
        mask_scores=np.array([0.3, 0.75, 0.3], np.float32),
        class_ids=np.array([2, 0, 1]),
        mask_rois=np.array([[1, 2, 9, 9], [0, 0, 4, 3], [5, 5, 5, 5]], np.int32),
        masks=(random.random((7, 8)) < 0.5, np.ones((3, 4), bool), np.zeros((0, 0), bool)),
        image_size=(12, 10),
    )


def message(found: Detections, encoding: int = Instance.MASK_BITS) -> InstanceArray:
    made = message_from_detections(
        found, NAMES, header=HEADER, keyframe_stamp=KEYFRAME_STAMP, mask_encoding=encoding
    )
    return deserialize_message(serialize_message(made), InstanceArray)


def test_header_size_and_keyframe_arrive_unchanged():
    received = message(detections())
    assert received.header == HEADER and received.keyframe_stamp == KEYFRAME_STAMP
    assert (received.height, received.width) == (12, 10)
    assert received.frame_type == InstanceArray.KEYFRAME


def test_instances_are_ordered_by_their_mask_scores():
    instances = message(detections()).instances
    assert [i.class_name for i in instances] == ["mug", "tray", "duck"]
    assert [i.class_id for i in instances] == [1, 3, 2]
    assert [i.instance_id for i in instances] == [1, 2, 3]
    assert [round(i.score, 6) for i in instances] == [0.75, 0.3, 0.3]
    assert [i.track_id for i in instances] == [0, 0, 0]


def test_boxes_are_pixels_of_the_source_image():
    tray = message(detections()).instances[1]
    assert (tray.x_min, tray.y_min, tray.x_max, tray.y_max) == (1.5, 2, 8.25, 9)


@pytest.mark.parametrize("encoding", [Instance.MASK_BITS, Instance.MASK_MONO8, Instance.MASK_RLE])
def test_masks_arrive_unchanged_in_every_encoding(encoding):
    found = detections()
    received = message(found, encoding)
    for instance, index in zip(received.instances, [1, 0, 2], strict=True):
        assert instance.mask_encoding == encoding
        mask = full_mask_from_message(instance, received.height, width=received.width)
        assert np.array_equal(mask, found[index].mask)
        assert instance.area == mask.sum()


def test_the_area_is_set_even_without_masks():
    instances = message(detections(), Instance.MASK_NONE).instances
    assert instances[0].area == 12 and len(instances[0].mask) == 0
    assert (instances[0].roi.width, instances[0].roi.height) == (4, 3)


def test_nothing_found_is_a_message_without_instances():
    received = message(Detections.empty((12, 10)))
    assert received.header == HEADER and (received.height, received.width) == (12, 10)
    assert len(received.instances) == 0
