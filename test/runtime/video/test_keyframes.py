"""Every reason for a keyframe applies within its bounds, in the right order."""

from __future__ import annotations

import math

import pytest

from yolact_ros.config import KeyframeConfig
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.video.keyframes import KeyframePolicy

SIZE = (480, 640)


def policy(**settings):
    return KeyframePolicy(KeyframeConfig(**settings))


def reasons(policy, stamps, **arguments):
    return [policy.decide(stamp, SIZE, **arguments) for stamp in stamps]


def test_every_nth_image_is_a_keyframe():
    assert reasons(policy(keyframe_interval=3), [None] * 8) == [
        *("first", None, None),
        *("interval", None, None),
        *("interval", None),
    ]


def test_with_interval_1_every_image_is_a_keyframe():
    assert reasons(policy(keyframe_interval=1), [0.0, 0.1, 0.2]) == [
        "first",
        "interval",
        "interval",
    ]


def test_a_decision_says_whether_it_is_for_a_keyframe():
    chosen = policy()
    assert chosen.decide(None, SIZE) is not None
    assert chosen.decide(None, SIZE) is None


def test_features_may_become_as_old_as_allowed_and_no_older():
    chosen = policy(keyframe_interval=100, max_feature_age=0.5)
    assert reasons(chosen, [10.0, 10.25, 10.5, 10.75, 11.0]) == [
        *("first", None, None),  # 0.5 s old is not too old
        *("feature_age", None),
    ]
    assert chosen.keyframe_stamp == 10.75


def test_a_decreasing_stamp_is_a_jump_in_time():
    assert reasons(policy(), [10.0, 10.1, 10.05, 10.1]) == ["first", None, "time_jump", None]


def test_a_repeated_stamp_is_not_a_jump():
    assert reasons(policy(), [10.0, 10.0, 10.0]) == ["first", None, None]


def test_a_gap_longer_than_the_age_limit_is_a_jump_in_time():
    chosen = policy(keyframe_interval=100, max_feature_age=0.5)
    assert reasons(chosen, [10.0, 10.4, 11.0]) == ["first", None, "time_jump"]


@pytest.mark.parametrize("stamp", [math.nan, math.inf, -math.inf])
def test_a_stamp_that_is_not_a_number_causes_keyframes(stamp):
    chosen = policy(keyframe_interval=100)
    assert reasons(chosen, [10.0, stamp, 10.1, 10.2]) == ["first", "time_jump", "time_jump", None]


def test_without_stamps_no_rule_of_time_applies():
    chosen = policy(keyframe_interval=100, max_feature_age=0.0)
    assert reasons(chosen, [None, 5.0, None, 3.0]) == ["first", None, None, None]
    assert chosen.keyframe_stamp is None


def test_with_an_age_limit_of_zero_no_image_reuses_another():
    assert reasons(policy(max_feature_age=0.0), [1.0, 1.1, 1.2]) == [
        "first",
        "time_jump",
        "time_jump",
    ]


def test_images_of_another_size_start_again():
    chosen = policy()
    sizes = [(480, 640), (480, 640), (640, 480), (640, 480)]
    assert [chosen.decide(None, size) for size in sizes] == [
        "first",
        None,
        "size_change",
        None,
    ]


def test_a_keyframe_can_be_requested():
    chosen = policy(keyframe_interval=3)
    chosen.decide(None, SIZE)
    assert chosen.decide(None, SIZE, requested=True) == "requested"
    assert reasons(chosen, [None] * 3) == [None, None, "interval"]  # counted from there


@pytest.mark.parametrize(
    "change, reason",
    [
        (0.0, None),
        (0.25, None),
        (0.2500001, "scene_change"),
        (math.nan, "scene_change"),
        (math.inf, "scene_change"),
    ],
)
def test_a_change_above_the_threshold_causes_a_keyframe(change, reason):
    chosen = policy(change_threshold=0.25)
    chosen.decide(None, SIZE)
    assert chosen.decide(None, SIZE, change=lambda: change) == reason


def test_change_is_measured_only_when_nothing_else_decides():
    asked = []

    def change():
        asked.append(len(asked))
        return 0.0

    chosen = policy(keyframe_interval=3)
    for _ in range(4):
        chosen.decide(None, SIZE, change=change)
    assert len(asked) == 2


def test_a_reset_policy_starts_with_a_keyframe():
    chosen = policy()
    reasons(chosen, [10.0, 10.1])
    chosen.reset()
    assert chosen.keyframe_stamp is None
    assert reasons(chosen, [3.0, 3.1]) == ["first", None]


def test_the_interval_may_change_between_two_images():
    chosen = policy(keyframe_interval=100)
    reasons(chosen, [None] * 4)
    chosen.config = KeyframeConfig(keyframe_interval=2)
    assert reasons(chosen, [None] * 3) == ["interval", None, "interval"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"keyframe_interval": 0}, "KeyframeConfig.keyframe_interval is 0"),
        ({"max_feature_age": -1.0}, "max_feature_age is -1"),
        ({"change_threshold": math.nan}, "change_threshold is nan"),
        ({"warp": "magic"}, "expected one of: auto, learned, dis, none"),
    ],
)
def test_settings_out_of_bounds_are_reported(settings, message):
    with pytest.raises(ConfigError, match=message):
        KeyframeConfig(**settings)


def test_an_image_that_nothing_can_serve_is_a_keyframe_and_its_change_is_not_measured():
    chosen = policy(keyframe_interval=10)
    chosen.decide(0.0, SIZE)

    def change():
        raise AssertionError("measured needlessly")

    assert chosen.decide(0.1, SIZE, change=change, reusable=False) == "interval"
    assert chosen.decide(0.2, SIZE) is None
    assert chosen.decide(0.3, SIZE, requested=True, reusable=False) == "requested"
