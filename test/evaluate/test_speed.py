from __future__ import annotations

import itertools
import json
import time

import cv2
import numpy as np
import pytest

from yolact_ros.cli.main import main
from yolact_ros.config import PostprocessConfig
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.machine import describe_machine, peak_memory_mb
from yolact_ros.evaluate.speed import (
    Times,
    endless_images,
    measure_postprocess,
    measure_speed,
    synthetic_image,
    synthetic_predictions,
)
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.postprocess import select_detections
from yolact_ros.variants import variant

MODEL = variant("yolact_resnet50")


def test_quantiles_by_hand():
    times = Times.of([float(i) for i in range(101)])
    assert (times.p50, times.p95, times.mean, times.least) == (50, 95, 50, 0)
    assert Times.of([3.0]) == Times(3, 3, 3, 3)


def test_stages_are_summarised_without_the_first_frames():
    calls = itertools.count()

    def segment(image):
        slow = next(calls) < 3  # the warm-up
        time.sleep(0.05 if slow else 0.002)
        return Detections.empty((4, 5), timings={"inference": 500.0 if slow else 2.0})

    report = measure_speed(segment, itertools.repeat(np.zeros((4, 5, 3), np.uint8)), frames=10)
    assert report.frames == 10
    assert next(calls) == 13
    assert report.stages["inference"].p95 == 2.0
    assert 2.0 <= report.stages["total"].p50 < 50
    assert report.frames_per_second == pytest.approx(1e3 / report.stages["total"].mean)
    assert report.instances == 0


def test_images_of_a_folder_are_repeated(tmp_path):
    for value in (10, 20):
        cv2.imwrite(str(tmp_path / f"{value}.png"), np.full((4, 5, 3), value, np.uint8))
    (tmp_path / "30.png").write_bytes(b"no picture")
    images = itertools.islice(endless_images(tmp_path), 5)
    assert [int(image[0, 0, 0]) for image in images] == [10, 20, 10, 20, 10]


def test_a_folder_without_readable_images_ends(tmp_path):
    (tmp_path / "30.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="no image that OpenCV can read"):
        next(endless_images(tmp_path))


@pytest.mark.parametrize("instances", [0, 1, 20])
def test_a_synthetic_scene_holds_about_as_many_objects(instances):
    predictions = synthetic_predictions(MODEL, instances=instances)
    assert predictions["boxes"].shape == (19248, 4)
    assert predictions["class_scores"].shape == (19248, 80)
    assert predictions["prototypes"].shape == (138, 138, 32)
    found = len(select_detections(predictions, PostprocessConfig()))
    assert 0.8 * instances <= found <= 1.3 * instances


def test_a_synthetic_scene_is_the_same_each_time():
    first, second = (synthetic_predictions(MODEL, instances=3) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert np.array_equal(synthetic_image((30, 40)), synthetic_image((30, 40)))


def test_post_processing_is_timed_by_stage():
    times = measure_postprocess(MODEL, instances=2, image_size=(60, 80), repetitions=2)
    assert set(times) == {"nms", "soft masks", "enlarge", "total"}
    parts = sum(times[stage].mean for stage in ("nms", "soft masks", "enlarge"))
    assert times["total"].mean == pytest.approx(parts, rel=1e-3)


def test_the_machine_is_named_and_memory_is_plausible():
    machine = describe_machine()
    assert machine["cpu"]
    assert machine["numpy"] == np.__version__
    assert 10 < peak_memory_mb() < 1e6


def test_the_command_prints_a_table_and_writes_json(tiny_bundle, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((96, 120, 3), np.uint8))
    words = ["benchmark", str(tiny_bundle.folder), "--images", str(tmp_path / "a.png")]
    words += ["--frames", "4", "--threads", "1", "--json", str(tmp_path / "speed.json")]
    assert main(words) == 0
    content = json.loads((tmp_path / "speed.json").read_text())
    assert set(content["stages"]) == {"preprocess", "inference", "postprocess", "total"}
    assert content["frames"] == 4
    assert content["instances"] == 2
    text = capsys.readouterr().out
    assert "p95" in text and "frames/s" in text and "peak memory" in text


def test_keyframes_and_the_frames_between_are_timed_apart(tiny_video_bundle, tmp_path, capsys):
    writer = cv2.VideoWriter(
        str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (120, 96)
    )
    for _ in range(4):
        writer.write(np.zeros((96, 120, 3), np.uint8))
    writer.release()
    words = ["benchmark", str(tiny_video_bundle.folder), "--images", str(tmp_path / "a.mp4")]
    words += ["--frames", "6", "--keyframe-interval", "2", "--json", str(tmp_path / "speed.json")]
    assert main(words) == 0
    stages = json.loads((tmp_path / "speed.json").read_text())["stages"]
    assert set(stages) == {
        *("preprocess", "inference", "postprocess", "total"),
        *("keyframe", "partial"),
    }
    mean = (stages["keyframe"]["mean"] + stages["partial"]["mean"]) / 2  # three of each
    assert mean == pytest.approx(stages["total"]["mean"])
    assert "partial" in capsys.readouterr().out


def test_the_command_measures_post_processing_without_a_model(tmp_path, capsys):
    words = ["benchmark", "--postprocess", "yolact_resnet50", "--frames", "1"]
    assert main([*words, "--json", str(tmp_path / "speed.json")]) == 0
    content = json.loads((tmp_path / "speed.json").read_text())
    assert set(content["scenes"]) == {"0 instances", "20 instances", "100 instances"}
    assert "100 instances at 1280x720" in capsys.readouterr().out


def test_no_frames_are_reported(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["benchmark", "--frames", "0"])
    assert ended.value.code == 2
    assert "--frames: '0' is not an integer from 1 to 1000000" in capsys.readouterr().err
