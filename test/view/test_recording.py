"""Results are recorded for the Rerun viewer."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolact_ros.cli.main import main
from yolact_ros.runtime.shipped import shipped_file

pytest.importorskip("rerun")

from rrd import show, verify  # noqa: E402


def test_a_recording_that_cannot_be_written_is_an_error(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 60, 3), np.uint8))
    assert main(["view", str(tmp_path / "a.png"), "-o", "/proc/none.rrd"]) == 1
    assert "/proc/none.rrd cannot be written" in capsys.readouterr().err


def test_a_video_becomes_a_valid_recording(tmp_path, capsys):
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
    verify(output)
    text = show(output)
    for entity in ("/picture/masks", "/picture/boxes", "/milliseconds/inference"):
        assert f"entity_path: {entity} " in text
