"""Detections are converted to vision_msgs, with strict types made from its recorded fields.

A record has the fields and types of vision_msgs 4.1.1; where that is installed, it is compared.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from yolact_ros.ros.outputs.result import Result
from yolact_ros.runtime.depth.objects import DepthView
from yolact_ros.runtime.detections import Detections

RECORD = json.loads((Path(__file__).parent.parent / "data" / "vision_msgs.json").read_text())
MODULE = "yolact_ros.ros.messages.vision"
NUMBERS = {"double": float, "float": float, "uint16": int, "string": str}


def strict_class(name: str, classes: dict[str, type]) -> type:
    """Create a type that accepts only its recorded fields with values of their types."""
    fields = RECORD[name]

    def kind_of(declared: str) -> type:
        if declared in NUMBERS:
            return NUMBERS[declared]
        package, kind = declared.split("/")
        if package == "vision_msgs":
            return classes[kind]
        return getattr(importlib.import_module(f"{package}.msg"), kind)

    def construct(self, **values):
        for field, declared in fields.items():
            empty = list if declared.startswith("sequence<") else kind_of(declared)
            setattr(self, field, values.pop(field, empty()))
        assert not values, f"{name} has no {sorted(values)}"

    def assign(self, field, value):
        declared = fields[field]
        if declared.startswith("sequence<"):
            kind = kind_of(declared[len("sequence<") : -1])
            assert isinstance(value, list) and all(isinstance(item, kind) for item in value)
        else:
            assert isinstance(value, kind_of(declared)), f"{name}.{field} = {value!r}"
            assert declared != "uint16" or 0 <= value < 2**16
        object.__setattr__(self, field, value)

    return type(
        name, (), {"__slots__": tuple(fields), "__init__": construct, "__setattr__": assign}
    )


@pytest.fixture
def vision(monkeypatch):
    """Return our conversion module on strict message types."""
    classes: dict[str, type] = {}
    for name in RECORD:
        classes[name] = strict_class(name, classes)
    package = types.ModuleType("vision_msgs")
    package.msg = types.ModuleType("vision_msgs.msg")
    vars(package.msg).update(classes)
    monkeypatch.setitem(sys.modules, "vision_msgs", package)
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", package.msg)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE)


def result(view: DepthView | None = None, track_ids=None) -> Result:
    """Return a weak object of class 3 on the left, which is nearer, and a strong one, class 1."""
    rois = np.array([[0, 0, 20, 20], [20, 10, 40, 30]], np.int32)
    found = Detections(
        boxes=rois + np.float32(0.5),
        scores=np.array([0.9, 0.8], np.float32),
        mask_scores=np.array([0.25, 0.75], np.float32),
        class_ids=np.array([2, 0]),
        mask_rois=rois,
        masks=(np.ones((20, 20), bool), np.ones((20, 20), bool)),
        image_size=(40, 60),
        track_ids=track_ids,
    )
    header = Header(stamp=Time(sec=7, nanosec=5), frame_id="optical")
    image = np.zeros((40, 60, 3), np.uint8)
    return Result(header, image, found, header.stamp, ("a", "b", "c"), find_depth=lambda: view)


def test_ids_of_label_info_begin_with_the_background(vision):
    info = vision.label_info(("mug", "duck"), threshold=0.5)
    assert [(c.class_id, c.class_name) for c in info.class_map] == [
        (0, "background"),
        (1, "mug"),
        (2, "duck"),
    ]
    assert info.threshold == 0.5


def test_boxes_are_given_by_centre_and_size_best_first(vision):
    made = result(track_ids=np.array([4, 0]))
    message = vision.detections_message(made)
    assert message.header == made.header
    strong, weak = message.detections
    assert (strong.bbox.center.position.x, strong.bbox.center.position.y) == (30.5, 20.5)
    assert (strong.bbox.size_x, strong.bbox.size_y, strong.bbox.center.theta) == (20, 20, 0)
    assert [d.results[0].hypothesis.class_id for d in (strong, weak)] == ["1", "3"]
    assert [d.results[0].hypothesis.score for d in (strong, weak)] == [0.75, 0.25]
    assert (strong.id, weak.id) == ("", "4") and weak.header == made.header
    assert vision.detections_message(result()).detections[0].id == ""


def test_3d_boxes_enclose_what_is_visible_and_require_depth(vision):
    metres = np.full((40, 60), 2.0, np.float32)
    metres[:, 20:] = np.nan
    rays = np.zeros((40, 60, 2), np.float32)
    rays[..., 0] = np.arange(60) / 10
    message = vision.detections_3d_message(result(DepthView(metres, rays)))
    (box,) = message.detections
    assert box.results[0].hypothesis.class_id == "3", "the other one has no depth"
    pose = box.results[0].pose.pose.position
    assert (pose.x, pose.z) == pytest.approx((1.9, 2.0), abs=0.05)
    assert (box.bbox.center.position.x, box.bbox.center.position.z) == pytest.approx(
        (1.9, 2.0), abs=0.05
    )
    assert (box.bbox.size.x, box.bbox.size.z) == pytest.approx((3.8, 0.0), abs=0.05)
    assert vision.detections_3d_message(result()) is None


def test_an_image_without_objects_has_empty_messages(vision):
    made = result(DepthView(np.ones((40, 60), np.float32), np.zeros((40, 60, 2), np.float32)))
    object.__setattr__(made, "detections", Detections.empty((40, 60)))
    assert vision.detections_message(made).detections == []
    assert vision.detections_3d_message(made).detections == []


def test_the_record_is_that_of_the_installed_package():
    installed = pytest.importorskip("vision_msgs.msg")
    for name, fields in RECORD.items():
        assert getattr(installed, name).get_fields_and_field_types() == fields
