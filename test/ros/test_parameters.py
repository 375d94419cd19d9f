from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy")

from rclpy.parameter import Parameter

from yolact_ros.config import KeyframeConfig, PostprocessConfig
from yolact_ros.errors import ConfigError
from yolact_ros.ros.demo.video_camera import CameraSettings
from yolact_ros.ros.parameters.declare import NodeParameters, declare_constant
from yolact_ros.ros.parameters.settings import (
    READ_BY_CONFIGURE,
    FrameSettings,
    InputSettings,
    ModelSettings,
    Settings,
    StartSettings,
    parameter_fields,
)

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TABLES = [getattr(Settings(), field.name) for field in dataclasses.fields(Settings)]
CONSTANT = [StartSettings(), CameraSettings()]


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


def with_frames(**values) -> Settings:
    return Settings(frames=FrameSettings(**values))


def test_a_node_has_the_defaults_without_other_values(make_node):
    node = make_node()
    assert declare_constant(node, StartSettings()) == StartSettings(autostart=True)
    assert NodeParameters(node, Settings()).current == Settings()
    assert isinstance(FrameSettings(), PostprocessConfig)


def test_values_given_at_the_start_apply(make_node):
    node = make_node(
        model="here", threads=2, cameras=["front", "rear"], score_threshold=0.7, warp="none"
    )
    assert NodeParameters(node, Settings()).current == Settings(
        model=ModelSettings(model="here", threads=2),
        inputs=InputSettings(cameras=("front", "rear")),
        frames=FrameSettings(score_threshold=0.7),
        keyframes=KeyframeConfig(warp="none", propagated_frames=-1),
    )


def test_no_two_tables_have_a_parameter_of_the_same_name():
    names = [
        field.name for table in [*TABLES, *CONSTANT[:1]] for field in dataclasses.fields(table)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("defaults", CONSTANT, ids=lambda d: type(d).__name__)
def test_every_constant_parameter_is_described_with_its_bounds(make_node, defaults):
    node = make_node()
    declare_constant(node, defaults)
    check_descriptions(node, defaults)


def test_every_parameter_is_described_with_its_bounds(make_node):
    node = make_node()
    NodeParameters(node, Settings())
    for table in TABLES:
        check_descriptions(node, table)


def check_descriptions(node, defaults):
    for field in parameter_fields(defaults):
        descriptor = node.describe_parameter(field.name)
        assert descriptor.description == field.metadata["doc"]
        bounds = [*descriptor.floating_point_range, *descriptor.integer_range]
        expected = [field.metadata["range"]] if "range" in field.metadata else []
        assert [(bound.from_value, bound.to_value) for bound in bounds] == expected
        for choice in field.metadata.get("choices", ()):
            assert choice in descriptor.additional_constraints


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", 1.5),
        ("score_threshold", 1),
        ("top_k", 0),
        ("mask_encoding", "png"),
        ("cameras", ["front", "front"]),
        ("cameras", ["front", ""]),
        ("cameras", ["front/left"]),
        ("queue_policy", "some"),
        ("max_frame_age", -0.1),
    ],
)
def test_a_value_that_cannot_be_used_at_the_start_is_refused_by_name(make_node, name, value):
    with pytest.raises(ConfigError, match=name):
        NodeParameters(make_node(**{name: value}), Settings())


def test_a_change_replaces_the_settings_and_leaves_earlier_ones_unchanged(make_node):
    node = make_node()
    live = NodeParameters(node, Settings())
    before = live.current
    (result,) = node.set_parameters([Parameter("score_threshold", value=0.6)])
    assert result.successful
    assert live.current == with_frames(score_threshold=0.6)
    assert before == Settings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("score_threshold", -0.1, "score_threshold"),
        ("score_threshold", "high", "type"),
        ("max_detections", 5000, "max_detections"),
        ("mask_encoding", "png", "bits, mono8, rle, none"),
        ("cameras", ["a b"], "part of topic names"),
    ],
)
def test_a_bad_change_is_refused_with_a_reason(make_node, name, value, reason):
    node = make_node()
    live = NodeParameters(node, Settings())
    before = node.get_parameter(name).value
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful and reason in result.reason
    assert live.current == Settings()
    assert node.get_parameter(name).value == before


@pytest.mark.parametrize("names", [("top_k", "mask_encoding"), ("keyframe_interval", "nms")])
def test_an_atomic_set_with_one_bad_value_changes_nothing(make_node, names):
    node = make_node()
    live = NodeParameters(node, Settings())
    good, bad = names
    changes = [Parameter(good, value=10), Parameter(bad, value="png")]
    assert not node.set_parameters_atomically(changes).successful
    assert live.current == Settings()


def test_parameters_that_configure_reads_can_change_only_before_it(make_node):
    node = make_node()
    live = NodeParameters(node, Settings())
    (result,) = node.set_parameters([Parameter("model", value="another")])
    assert result.successful and live.current.model.model == "another"
    live.freeze()
    (result,) = node.set_parameters([Parameter("model", value="third")])
    assert not result.successful and "cleanup" in result.reason and "model" in result.reason
    (same,) = node.set_parameters([Parameter("model", value="another")])
    assert same.successful, "the same value is no change"
    (result,) = node.set_parameters([Parameter("top_k", value=7)])
    assert result.successful
    assert live.current.model.model == "another" and live.current.frames.top_k == 7
    for table in READ_BY_CONFIGURE:
        for field in parameter_fields(getattr(Settings(), table)):
            constraints = node.describe_parameter(field.name).additional_constraints
            assert "read by the transition configure" in constraints


def test_a_setting_that_the_open_model_does_not_support_is_refused(make_node):
    def check(settings):
        if settings.keyframes.warp != "auto":
            raise ConfigError(f"no warp {settings.keyframes.warp}")

    node = make_node()
    live = NodeParameters(node, Settings())
    live.freeze()
    live.guard(check)
    (result,) = node.set_parameters([Parameter("warp", value="dis")])
    assert not result.successful and result.reason == "no warp dis"
    live.thaw()
    assert node.set_parameters([Parameter("warp", value="dis")])[0].successful


def test_parameters_that_are_read_at_the_start_cannot_change(make_node):
    node = make_node()
    declare_constant(node, StartSettings())
    (result,) = node.set_parameters([Parameter("autostart", value=False)])
    assert not result.successful and "read-only" in result.reason
    assert "restart" in node.describe_parameter("autostart").additional_constraints


def test_other_parameters_of_the_node_may_change(make_node):
    node = make_node()
    live = NodeParameters(node, Settings())
    node.declare_parameter("of_somebody_else", 1)
    (result,) = node.set_parameters([Parameter("of_somebody_else", value=2)])
    assert result.successful and live.current == Settings()


def test_a_change_during_configure_is_checked_before_images_are_taken(make_node):
    """`ros2 param set` arrives while another thread opens the model."""

    def check(settings):
        if settings.frames.nms == "greedy":
            raise ConfigError("this model has no greedy NMS")

    node = make_node()
    live = NodeParameters(node, Settings())
    live.freeze()
    assert node.set_parameters([Parameter("nms", value="greedy")])[0].successful
    with pytest.raises(ConfigError, match="no greedy"):
        live.guard(check)
    assert node.set_parameters([Parameter("nms", value="fast")])[0].successful
    live.guard(check)
    assert not node.set_parameters([Parameter("nms", value="greedy")])[0].successful


WRITE = "python3 scripts/write_parameters.py"
WRITER = runpy.run_path(str(REPOSITORY / "scripts" / "write_parameters.py"))


def test_the_parameter_file_has_all_parameters_with_their_defaults():
    text = (REPOSITORY / "config/yolact_node.yaml").read_text()
    assert text == WRITER["parameter_file"](), f"write it: {WRITE}"
    written = yaml.safe_load(text)["/**"]["ros__parameters"]
    defaults: dict[str, object] = dataclasses.asdict(StartSettings())
    for table in TABLES:
        defaults |= {f.name: getattr(table, f.name) for f in parameter_fields(table)}
    assert written == {**defaults, "cameras": list(defaults["cameras"])}


def test_the_readme_has_the_table_of_parameters():
    text = (REPOSITORY / "docs" / "parameters.md").read_text()
    assert text == WRITER["with_table"](text), f"write it: {WRITE}"
    for table in TABLES:
        for field in parameter_fields(table):
            assert f"| `{field.name}` |" in text and field.metadata["doc"].rstrip(")") in text


def test_a_node_that_reads_the_parameter_file_has_the_defaults(ros):
    """The types must agree as well, because a threshold does not accept an integer."""
    node = rclpy.create_node(
        "parameters",
        cli_args=["--ros-args", "--params-file", str(REPOSITORY / "config/yolact_node.yaml")],
        use_global_arguments=False,
    )
    assert declare_constant(node, StartSettings()) == StartSettings()
    assert NodeParameters(node, Settings()).current == Settings()
    node.destroy_node()


def test_settings_that_reproduce_papers_are_not_parameters(make_node):
    node = make_node()
    NodeParameters(node, Settings())
    for name in ("crop_masks", "rescore_masks", "all_classes", "integer_boxes"):
        assert hasattr(PostprocessConfig(), name) and not node.has_parameter(name)
