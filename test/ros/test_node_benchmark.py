"""The node's benchmark runs and computes the right figures."""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("onnx")

from yolact_ros.config import BackendConfig
from yolact_ros.msg import FrameStats
from yolact_ros.ros.benchmark.main import (
    age_at_inference_ms,
    cpu_seconds,
    overhead_ms,
    percentiles,
)
from yolact_ros.ros.benchmark.model import write_benchmark_model
from yolact_ros.runtime.segmenter import Segmenter

STATS = FrameStats(
    transport_ms=2.0,
    wait_ms=16.0,
    decode_ms=0.5,
    preprocess_ms=1.5,
    inference_ms=80.0,
    postprocess_ms=4.0,
    publish_ms=9.0,  # other topics, too, which are published later
    latency_ms=106.0,
)


def test_age_and_overhead_are_sums_of_the_statistics():
    assert age_at_inference_ms(STATS) == 20.0
    assert overhead_ms(STATS) == 2.5


def test_percentiles_are_formatted():
    assert percentiles(range(101)) == "p50 50.0 ms, p95 95.0 ms"
    assert percentiles([]) == "no results"


def test_processor_time_is_that_of_the_process():
    before, ours = cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - ours < 0.2:
        pass
    assert cpu_seconds(os.getpid()) - before == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize("inference_ms", [0.0, 2.0])
def test_the_model_finds_a_grid_of_twenty_instances_in_any_image(tmp_path, inference_ms):
    bundle = write_benchmark_model(tmp_path / "model", inference_ms=inference_ms)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with Segmenter.open(bundle, backend=BackendConfig(threads=1)) as segmenter:
        detections = segmenter.segment(image)
    assert len(detections) == 20
    # Places are 128x120 pixels; the middle 80 % of each is an instance.
    expected = [
        (128 * x + 12.8, 120 * y + 12.0, 128 * x + 115.2, 120 * y + 108.0)
        for y in range(4)
        for x in range(5)
    ]
    assert np.allclose(detections.boxes, expected, atol=1e-3)
    areas = [np.count_nonzero(mask) for mask in detections.masks]
    # Masks end a prototype's cell, 8x6 pixels, beyond their boxes.
    assert areas == pytest.approx([(102.4 + 16.0) * (96.0 + 12.0)] * 20, rel=0.03)


def test_the_benchmark_prints_figures(start):
    program = start("node_benchmark", "--seconds", "1")
    assert program.wait() == 0, program.output
    figures = [line for line in program.output.splitlines() if line.startswith(("CPU", "over"))]
    assert len(figures) == 5
    assert all(re.search(r"\d\.\d (%|ms)", line) for line in figures)
    assert program.output.count("publishing, with ~/") >= 8
    for topic in ("points", "cloud", "markers"):
        assert re.search(rf"arrival of ~/{topic} +p50 \d", program.output)


def test_too_short_a_time_is_refused(start):
    program = start("node_benchmark", "--seconds", "0")
    assert program.wait() == 2
    assert "must be 1 or more" in program.output
