"""Readings are mapped to the levels and messages that operators see."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("diagnostic_msgs")

from diagnostic_msgs.msg import DiagnosticStatus

from yolact_ros.config import ModelConfig
from yolact_ros.ros.diagnostics.health import (
    CameraStats,
    Percentiles,
    camera_status,
    model_status,
)
from yolact_ros.ros.inputs.mailbox import FrameCounts
from yolact_ros.ros.parameters.settings import DiagnosticSettings
from yolact_ros.runtime.bundle import ModelDescription

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE
LIMITS = DiagnosticSettings()
# A camera of 20 Hz of whose images one in four is replaced by a newer one, over 10 seconds.
GOOD = CameraStats(
    topic="/camera/image_raw",
    publishers=1,
    silence_s=0.04,
    window_s=10.0,
    counts=FrameCounts(received=1000, processed=745, dropped=250, stale=2, failed=3),
    lost=7,
    counting_s=67.0,
    space=FrameCounts(received=8, processed=5, failed=2, dropped=1),
    recent=FrameCounts(received=200, processed=150, dropped=50),
    times={"latency": Percentiles(38.0, 42.4, 61.0), "inference": Percentiles(30.0, 31.0, 40.0)},
    feature_age_s=Percentiles(0.1, 0.2, 0.2),
)
CASES = {
    "good": ({}, {}, OK, "15.0 Hz, 38 ms from stamp to result"),
    "no image": (
        {"silence_s": 5.4, "publishers": 0},
        {},
        STALE,
        "No image for 5 s on /camera/image_raw; publishers: 0",
    ),
    "no image that fits": (
        {"silence_s": 9.0, "clash": "Set it to best_effort."},
        {},
        STALE,
        "No image for 9 s on /camera/image_raw; publishers: 1. Set it to best_effort.",
    ),
    "no image, and no limit": ({"silence_s": 900.0}, {"image_timeout": 0.0}, OK, "15.0 Hz, 38 ms"),
    "not yet an image": (
        {"counts": FrameCounts(), "recent": FrameCounts(), "times": {}, "publishers": 2},
        {},
        OK,
        "waiting for images on /camera/image_raw; publishers: 2",
    ),
    "inactive": ({"state": "inactive", "silence_s": 900.0}, {}, OK, "inactive"),
    "one publisher is incompatible": ({"clash": "Nothing arrives."}, {}, WARN, "Nothing arrives."),
    "slow": (
        {},
        {"target_rate": 20.0},
        WARN,
        "Results are published at 15.0 Hz, below target_rate (20 Hz); images arrive at",
    ),
    "fast enough": ({}, {"target_rate": 15.0}, OK, "15.0 Hz"),
    "late": (
        {},
        {"latency_warning": 0.04},
        WARN,
        "The p95 latency is 42 ms, more than 40 ms",
    ),
    "some fail": (
        {"recent": FrameCounts(received=9, processed=6, failed=3), "error": "No such encoding."},
        {},
        WARN,
        "3 images failed in the last 10 s; the last error: No such encoding.",
    ),
    "all fail": (
        {"recent": FrameCounts(received=9, failed=9), "error": "No such encoding."},
        {},
        ERROR,
        "9 images failed in the last 10 s; the last error: No such encoding.",
    ),
    "all are old": (
        {"recent": FrameCounts(received=9, stale=9)},
        {},
        ERROR,
        "9 images in the last 10 s were older than max_frame_age",
    ),
    "nothing comes out": (
        {"recent": FrameCounts(received=200, dropped=199, in_flight=1), "times": {}},
        {},
        ERROR,
        "No result in the last 10 s, although 200 images arrived: the model is stuck",
    ),
    "nothing has come out yet": (
        {"recent": FrameCounts(received=9, dropped=8, in_flight=1), "times": {}, "window_s": 1.0},
        {},
        OK,
        "0.0 Hz",
    ),
    "some are lost": (
        {"recent_lost": 4},
        {},
        WARN,
        "4 images were lost in the last 10 s. The middleware has lost 7 messages of",
    ),
    "the camera's clock is ahead": (
        {"times": {"latency": Percentiles(-505e3, -500e3, -490e3)}},
        {"latency_warning": 0.1},
        WARN,
        "Images are stamped 505.0 s later than the node's time",
    ),
    "an old bag is played": (
        {"times": {"latency": Percentiles(9e9, 9e9, 9e9)}},
        {"latency_warning": 0.1},
        WARN,
        "Images are stamped 9,000,000.0 s before the node's time",
    ),
    "simulated time stands still": (
        {"clock_fault": "use_sim_time is true, but nothing is on /clock."},
        {},
        ERROR,
        "use_sim_time is true",
    ),
    "two things": (
        {"recent_lost": 4, "recent": FrameCounts(received=9, failed=9), "error": "Bad."},
        {},
        ERROR,
        "9 images failed in the last 10 s; the last error: Bad.; 4 images were lost",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_camera_gets_a_level_and_a_message(case):
    changes, limits, level, message = CASES[case]
    status = camera_status("yolact", replace(GOOD, **changes), DiagnosticSettings(**limits))
    assert status.level == level
    assert status.message.startswith(message)
    assert (status.name, status.hardware_id) == ("yolact: /camera/image_raw", "yolact")


def test_the_values_contain_rates_times_and_all_counts():
    status = camera_status("yolact", GOOD, DiagnosticSettings(target_rate=15.0))
    values = {entry.key: entry.value for entry in status.values}
    assert values == {
        "topic": "/camera/image_raw",
        "publishers": "1",
        "state": "active",
        "input rate (Hz)": "20.0",
        "output rate (Hz)": "15.0",
        "target rate (Hz)": "15",
        "latency p50/p95/max (ms)": "38 / 42.4 / 61",
        "inference p50/p95/max (ms)": "30 / 31 / 40",
        "feature age p50/p95/max (s)": "0.1 / 0.2 / 0.2",
        "received": "1000",
        "processed": "745",
        "dropped": "250",
        "stale": "2",
        "failed": "3",
        "lost": "7",
        "3-D results": "5 published, 2 without depth, 1 replaced by newer ones",
        "counting since configure (s)": "67",
    }


def test_a_camera_without_images_has_no_rate():
    status = camera_status("yolact", CameraStats(topic="/image"), LIMITS)
    assert status.level == OK
    assert {e.value for e in status.values if "rate" in e.key} == {"0.0", "none"}


MODEL = {
    "state": "active",
    "model": ModelDescription(
        ModelConfig("tabletop", ("mug",)), "dense", max_detections=10, identity="0123456789ab"
    ),
    "backend": "OnnxRuntime",
    "memory_mb": 171.4,
}


@pytest.mark.parametrize(
    ("changes", "level", "message"),
    [
        ({}, OK, "active, tabletop on OnnxRuntime"),
        (
            {"backend": "TensorRt"},
            OK,
            "active, tabletop on TensorRt (experimental: tested on one GPU only)",
        ),
        ({"fault": "The device is gone."}, ERROR, "The device is gone."),
        ({"model": None, "state": "unconfigured"}, OK, "unconfigured"),
    ],
)
def test_the_model_gets_a_level_and_a_message(changes, level, message):
    status = model_status("yolact", **(MODEL | changes))
    assert (status.level, status.message, status.name) == (level, message, "yolact: model")


def test_the_models_values_identify_it():
    values = {e.key: e.value for e in model_status("yolact", **MODEL).values}
    assert values == {
        "state": "active",
        "model": "tabletop",
        "SHA-256": "0123456789ab",
        "backend": "OnnxRuntime",
        "target": "onnxruntime",
        "precision": "fp32",
        "memory (MB)": "171",
    }


def test_percentiles_match_hand_made_numbers():
    assert Percentiles.of([]) is None
    assert Percentiles.of([3.0]) == Percentiles(3.0, 3.0, 3.0)
    assert Percentiles.of([float(n) for n in range(101)]) == Percentiles(50.0, 95.0, 100.0)
