"""Foxglove's own readers decode the annotations and overlays in bags with the bag's schemas."""

from __future__ import annotations

import re
import sys
import types

import cv2
import numpy as np
import pytest

from yolact_ros.bag.segmented_bag import BagOptions, segment_bag
from yolact_ros.cli.main import main
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.annotations import outlines
from yolact_ros.runtime.output.draw import draw_detections

mcap = pytest.importorskip("mcap_ros2.reader")


def numbers(message) -> tuple:
    """Convert a decoded message to plain values, in the order of its fields."""
    if isinstance(message, list):
        return tuple(map(numbers, message))
    slots = getattr(message, "__slots__", None)
    return tuple(numbers(getattr(message, name)) for name in slots) if slots else message


def test_masks_are_outlines_with_names_at_the_images_stamp(record, segmenter, tmp_path, images):
    target, found = tmp_path / "out.mcap", []
    options = BagOptions(annotations=True, overlay=True)
    segment_bag(
        record(compressed=True), target, segmenter, options=options,
        result=lambda place, stamp, detections: found.append(detections),
    )  # fmt: skip
    received: dict[str, list] = {}
    for message in mcap.read_ros2_messages(target):
        received.setdefault(message.channel.topic, []).append(message)
    instances, annotations, overlays, pictures = (
        [message.ros_msg for message in received[topic]]
        for topic in (
            *("/yolact/instances", "/yolact/annotations", "/yolact/overlay/compressed"),
            "/camera/image_raw",
        )
    )
    schema = received["/yolact/annotations"][0].schema
    assert schema.name == "foxglove_msgs/msg/ImageAnnotations" and schema.encoding == "ros2msg"
    assert len(annotations) == len(overlays) == len(found) == 6
    classes = segmenter.description.model.classes
    for image, detections, result, annotation, overlay, picture in zip(
        images, found, instances, annotations, overlays, pictures, strict=True
    ):
        assert numbers(annotation.timestamp) == numbers(result.header.stamp)
        assert numbers(overlay.header) == numbers(picture.header)
        names = [f"{i.class_name} {i.score:.2f}" for i in result.instances]
        texts = [re.sub(r"^#\d+ ", "", text.text) for text in annotation.texts]
        assert sorted(texts) == sorted(names)
        filled = np.zeros(image.shape[:2], np.uint8)
        for loop in annotation.points:
            cv2.fillPoly(filled, [np.array([(p.x, p.y) for p in loop.points], np.int32)], 1)
        masks = np.sum([instance.mask for instance in detections], axis=0)
        assert (filled > 0).tolist() == (masks > 0).tolist() and masks.any()
        assert {loop.type for loop in annotation.points} == {2}
        jpeg = cv2.imdecode(np.frombuffer(overlay.data, np.uint8), cv2.IMREAD_COLOR)
        drawn = draw_detections(image, detections, classes)
        difference = np.abs(jpeg.astype(int) - drawn).mean()  # the overlay also has track ids
        assert difference < min(15, np.abs(jpeg.astype(int) - image).mean())


def test_filled_outlines_are_the_mask_without_holes():
    rng = np.random.default_rng(3)
    mask = cv2.resize(rng.random((6, 8)), (80, 60), interpolation=cv2.INTER_LINEAR) > 0.5
    empty = np.zeros((0, 5), bool)
    detections = Detections(
        boxes=np.zeros((2, 4), np.float32),
        scores=np.ones(2, np.float32),
        mask_scores=np.ones(2, np.float32),
        class_ids=np.zeros(2, int),
        mask_rois=np.array([[7, 9, 87, 69], [0, 0, 5, 0]], np.int32),
        masks=(mask, empty),
        image_size=(100, 120),
    )
    filled = np.zeros((100, 120), np.uint8)
    for outline in outlines(detections, 0):
        cv2.fillPoly(filled, [outline.astype(np.int32)], 1)
    whole = np.zeros((100, 120), np.uint8)
    whole[9:69, 7:87] = mask
    _, outside, *_ = cv2.floodFill(whole.copy(), None, (0, 0), 2)  # holes are filled, too
    assert (filled == (outside != 2)).all() and filled.any()
    assert outlines(detections, 1) == []


def test_a_result_topic_with_the_name_of_the_annotations_is_refused(record, capsys, tmp_path):
    words = ["bag", str(record()), str(tmp_path / "out"), "--annotations"]
    assert main([*words, "--result-topic", "/yolact/annotations"]) == 1
    assert "--result-topic" in capsys.readouterr().err


def test_the_node_publishes_what_a_bag_holds(segmenter, images, monkeypatch):
    """The wheels lack foxglove_msgs, so strict types are made from its definition."""
    pytest.importorskip("rclpy")
    from yolact_ros.bag.messages import IMAGE_ANNOTATIONS, LISTS, serialize_annotations, typestore
    from yolact_ros.ros.outputs import topics
    from yolact_ros.ros.outputs.result import Result

    store = typestore()

    def strict(name):
        kind = store.types[f"foxglove_msgs/msg/{name}"]
        lists = {field: [] for field in kind.__dataclass_fields__ if field in LISTS}
        return lambda **fields: kind(**lists | fields)

    package = types.ModuleType("foxglove_msgs")
    package.msg = types.SimpleNamespace(
        **{n: strict(n) for n in ("Color", "Point2", "PointsAnnotation", "TextAnnotation")},
        ImageAnnotations=strict("ImageAnnotations"),
    )
    monkeypatch.setitem(sys.modules, "foxglove_msgs", package)
    monkeypatch.setattr(topics, "HAS_FOXGLOVE_MSGS", True)
    (topic,) = (topic for topic in topics.image_topics() if topic.name == "~/annotations")
    found, names = segmenter.segment(images[2]), segmenter.description.model.classes
    stamp = store.types["builtin_interfaces/msg/Time"](sec=3, nanosec=4)
    header = types.SimpleNamespace(stamp=stamp)
    made = topic.make(Result(header, images[2], found, stamp, names))
    written = bytes(store.serialize_cdr(made, IMAGE_ANNOTATIONS))
    assert written == serialize_annotations(found, names, header=header) and len(found)
