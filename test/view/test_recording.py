"""Recordings for the Rerun viewer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolact_ros.cli.main import main
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.shipped import shipped_file

pytest.importorskip("rerun")

from yolact_ros.view.recording import label_image  # noqa: E402


def test_labels_are_class_ids_from_one_with_the_best_instance_on_top():
    found = Detections(
        boxes=np.zeros((2, 4), np.float32),
        scores=np.array([0.9, 0.8], np.float32),
        mask_scores=np.array([0.9, 0.8], np.float32),
        class_ids=np.array([4, 0]),
        mask_rois=np.array([[0, 0, 2, 1], [1, 0, 3, 2]], np.int32),
        masks=(np.ones((1, 2), bool), np.ones((2, 2), bool)),
        image_size=(2, 4),
        class_names=("a", "b", "c", "d", "e"),
    )
    assert label_image(found).tolist() == [[5, 5, 1, 0], [0, 1, 1, 0]]
    assert not label_image(Detections.empty((2, 3))).any()


def test_a_video_becomes_a_sound_recording(tmp_path, capsys):
    video = cv2.VideoCapture(str(shipped_file("models/demo/tabletop.mp4")))
    clip = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 20, (640, 480)
    )
    for _ in range(4):
        read, image = video.read()
        clip.write(image if read else np.zeros((480, 640, 3), np.uint8))
    clip.release()
    output = tmp_path / "clip.rrd"
    (tmp_path / "broken.png").write_text("no picture")
    words = [str(tmp_path / "clip.avi"), str(tmp_path / "broken.png"), "-o", str(output)]
    assert main(["view", *words]) == 1
    streams = capsys.readouterr()
    assert "broken.png" in streams.err and str(output) in streams.out
    rerun = Path(sys.executable).parent / "rerun"
    for action in ("verify", "print"):
        result = subprocess.run(
            [rerun, "rrd", action, output], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
    for entity in ("/picture/masks", "/picture/boxes", "/milliseconds/inference"):
        assert entity in result.stdout
