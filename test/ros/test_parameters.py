from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy")

from rclpy.parameter import Parameter

from yolact_ros.config import KeyframeConfig, PostprocessConfig
from yolact_ros.errors import ConfigError
from yolact_ros.ros.camera import CameraSettings
from yolact_ros.ros.parameters import (
    FrameSettings,
    LiveSettings,
    ModelSettings,
    declare_constant,
)

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ALL_SETTINGS = [ModelSettings(), FrameSettings(), KeyframeConfig(), CameraSettings()]


@pytest.fixture
def make_node(ros):
    nodes = []

    def make(**overrides):
        values = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(rclpy.create_node("parameters", parameter_overrides=values))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_without_values_of_its_own_a_node_has_the_defaults(make_node):
    node = make_node()
    assert declare_constant(node, ModelSettings()) == ModelSettings()
    assert LiveSettings(node, FrameSettings()).current == FrameSettings()
    assert isinstance(FrameSettings(), PostprocessConfig)


def test_values_given_at_the_start_hold(make_node):
    node = make_node(model="here", threads=2, score_threshold=0.7, mask_encoding="rle")
    assert declare_constant(node, ModelSettings()) == ModelSettings(model="here", threads=2)
    expected = FrameSettings(score_threshold=0.7, mask_encoding="rle")
    assert LiveSettings(node, FrameSettings()).current == expected


@pytest.mark.parametrize("defaults", ALL_SETTINGS, ids=lambda d: type(d).__name__)
def test_every_parameter_is_described_with_its_bounds(make_node, defaults):
    node = make_node()
    declare_constant(node, defaults)
    for field in dataclasses.fields(defaults):
        descriptor = node.describe_parameter(field.name)
        assert descriptor.description == field.metadata["doc"]
        bounds = [*descriptor.floating_point_range, *descriptor.integer_range]
        expected = [field.metadata["range"]] if "range" in field.metadata else []
        assert [(bound.from_value, bound.to_value) for bound in bounds] == expected
        for choice in field.metadata.get("choices", ()):
            assert choice in descriptor.additional_constraints


@pytest.mark.parametrize(
    ("name", "value"),
    [("score_threshold", 1.5), ("score_threshold", 1), ("top_k", 0), ("mask_encoding", "png")],
)
def test_a_value_that_cannot_be_used_at_the_start_is_refused_by_name(make_node, name, value):
    with pytest.raises(ConfigError, match=name):
        LiveSettings(make_node(**{name: value}), FrameSettings())


def test_a_change_replaces_the_settings_and_leaves_old_ones_as_they_were(make_node):
    node = make_node()
    live = LiveSettings(node, FrameSettings())
    before = live.current
    (result,) = node.set_parameters([Parameter("score_threshold", value=0.6)])
    assert result.successful
    assert live.current == FrameSettings(score_threshold=0.6)
    assert before == FrameSettings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("score_threshold", -0.1, "score_threshold"),
        ("score_threshold", "high", "type"),
        ("max_detections", 5000, "max_detections"),
        ("mask_encoding", "png", "bits, mono8, rle, none"),
    ],
)
def test_a_bad_change_is_refused_with_a_reason(make_node, name, value, reason):
    node = make_node()
    live = LiveSettings(node, FrameSettings())
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful and reason in result.reason
    assert live.current == FrameSettings()
    assert node.get_parameter(name).value == getattr(FrameSettings(), name)


def test_of_an_atomic_set_with_one_bad_value_nothing_is_taken(make_node):
    node = make_node()
    live = LiveSettings(node, FrameSettings())
    changes = [Parameter("top_k", value=10), Parameter("mask_encoding", value="png")]
    assert not node.set_parameters_atomically(changes).successful
    assert live.current == FrameSettings()


def test_what_is_read_once_cannot_change(make_node):
    node = make_node()
    declare_constant(node, ModelSettings())
    (result,) = node.set_parameters([Parameter("model", value="another")])
    assert not result.successful and "read-only" in result.reason
    assert "restart" in node.describe_parameter("model").additional_constraints


def test_other_parameters_of_the_node_may_change(make_node):
    node = make_node()
    live = LiveSettings(node, FrameSettings())
    node.declare_parameter("of_somebody_else", 1)
    (result,) = node.set_parameters([Parameter("of_somebody_else", value=2)])
    assert result.successful and live.current == FrameSettings()


def test_the_parameter_file_names_parameters_of_the_node_with_their_defaults():
    content = yaml.safe_load((REPOSITORY / "config/yolact_node.yaml").read_text())
    written = content["/**"]["ros__parameters"]
    defaults: dict[str, object] = {}
    for settings in (ModelSettings(), FrameSettings(), KeyframeConfig()):
        defaults |= dataclasses.asdict(settings)
    assert written == {name: defaults[name] for name in written}
