"""The camera and the demonstration run as processes over real DDS."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import Image

from yolact_ros.errors import BundleError, ConfigError
from yolact_ros.ros.demo.main import OverlayVideo
from yolact_ros.ros.demo.video_camera import read_video, video_rate
from yolact_ros.ros.messages.images import bgr_from_message
from yolact_ros.runtime.shipped import find_model

RATE = 10.0


def write_video(path: Path, images: list[np.ndarray]) -> Path:
    height, width, _ = images[0].shape
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), fourcc, RATE, (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(image)
    writer.release()
    return path


@pytest.fixture
def clip(tmp_path, image_with) -> Path:
    """Write a clip of three seconds with a blue rectangle that moves on grey."""
    places = [(4 * i, 32, 4 * i + 64, 96) for i in range(30)]
    return write_video(
        tmp_path / "clip.mp4", [image_with({"blue": place}, (192, 256)) for place in places]
    )


def test_the_camera_publishes_the_images_in_order_at_the_videos_rate(start, client, clip):
    received: list[Image] = []
    client.node.create_subscription(Image, "camera/image_raw", received.append, 50)
    camera = start(
        "camera",
        ros_arguments=("-r", f"__ns:={client.namespace}", "-p", f"video:={clip}"),
    )
    assert client.spin_until(lambda: camera.process.poll() is not None, 60.0)
    assert camera.wait() == 0
    assert "Published 30 images" in camera.output
    client.spin_until(lambda: len(received) == 30, 1.0)
    assert len(received) >= 25, "a busy machine may lose some"
    assert {message.header.frame_id for message in received} == {"camera_optical_frame"}
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in received]
    assert np.median(np.diff(stamps)) == pytest.approx(1 / RATE, rel=0.2)
    images = read_video(str(clip))
    for message in received:
        pixels = bgr_from_message(message)
        assert any(np.array_equal(pixels, image) for image in images), "not in the clip's order"


def test_a_loop_restarts_the_video(clip):
    once = list(read_video(str(clip)))
    played = list(itertools.islice(read_video(str(clip), loop=True), 65))
    assert len(once) == 30
    for number, image in enumerate(played):
        assert np.array_equal(image, once[number % 30])


def test_the_camera_ends_cleanly_on_a_signal(start, client, clip):
    camera = start("camera", ros_arguments=("-p", f"video:={clip}", "-p", "wait:=false"))
    camera.wait_for("Publishing")
    status, _ = camera.end(signal.SIGTERM)
    assert status == 0 and "Traceback" not in camera.output


@pytest.mark.parametrize("content", [None, b"", b"no video"])
def test_a_video_that_cannot_be_played_ends_the_camera_with_an_error_message(
    start, tmp_path, content
):
    path = tmp_path / "broken.mp4"
    if content is not None:
        path.write_bytes(content)
    camera = start("camera", ros_arguments=("-p", f"video:={path}", "-p", "wait:=false"))
    assert camera.wait() == 1
    assert str(path) in camera.output and "Traceback" not in camera.output
    with pytest.raises(ConfigError, match="broken.mp4"):
        video_rate(str(path))


def test_the_demonstration_plays_a_clip_through_the_node(start, clip, squares_bundle, tmp_path):
    output = tmp_path / "out"
    demo = start(
        "demo", "--clip", str(clip), "--model", str(squares_bundle), "--output", str(output)
    )
    assert demo.wait(120.0) == 0, demo.output
    assert "1 blue" in demo.output and "latency p50" in demo.output
    assert str(output / "demo.mp4") in demo.output and str(output / "demo.png") in demo.output
    assert "Traceback" not in demo.output
    picture = cv2.imread(str(output / "demo.png"))
    assert picture.shape == (192, 256, 3)
    shown = sum(1 for _ in read_video(str(output / "demo.mp4")))
    assert 20 <= shown <= 30 and video_rate(str(output / "demo.mp4")) == RATE


def test_the_demonstration_plays_the_shipped_model(start, clip, tmp_path):
    try:
        find_model("tabletop")
    except BundleError as error:
        pytest.skip(str(error))
    demo = start("demo", "--clip", str(clip), "--output", str(tmp_path))
    assert demo.wait(120.0) == 0, demo.output
    assert "0 failed" in demo.output and (tmp_path / "demo.png").exists()


def test_the_demonstration_fails_if_the_node_does(start, clip, tmp_path):
    model = tmp_path / "no model"
    demo = start("demo", "--clip", str(clip), "--model", str(model), "--output", str(tmp_path))
    assert demo.wait() == 1
    assert str(model) in demo.output and "yolact_node ended with status 1" in demo.output
    assert "Traceback" not in demo.output


def test_the_demonstration_fails_when_the_clip_is_missing(start, squares_bundle, tmp_path):
    clip = tmp_path / "no clip.mp4"
    demo = start("demo", "--clip", str(clip), "--model", str(squares_bundle))
    assert demo.wait() == 1
    assert str(clip) in demo.output and "Traceback" not in demo.output


def test_the_demonstration_ends_its_programs_when_it_is_interrupted(
    start, clip, squares_bundle, tmp_path
):
    demo = start(
        "demo", "--clip", str(clip), "--model", str(squares_bundle), "--output", str(tmp_path)
    )
    demo.wait_for("latency p50")
    children = Path(f"/proc/{demo.process.pid}/task/{demo.process.pid}/children")
    running = children.read_text().split() if sys.platform == "linux" else []
    status, _ = demo.end()
    assert status == 130 and "Traceback" not in demo.output
    assert not [pid for pid in running if Path("/proc", pid).exists()]


def test_the_overlay_video_lasts_as_long_as_its_images(tmp_path):
    images = [np.full((48, 64, 3), level, np.uint8) for level in (0, 120, 240)]
    video = OverlayVideo(tmp_path / "overlay.mp4", 10.0)
    for image, seconds in zip(images, (50.0, 50.1, 50.5), strict=True):
        video.add(image, seconds)
    assert video.close() == 6
    levels = [image.mean() for image in read_video(str(tmp_path / "overlay.mp4"))]
    assert levels == pytest.approx([0, 120, 120, 120, 120, 240], abs=4)
    assert np.array_equal(video.last, images[2])


LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from yolact_ros.errors import DatasetError
from yolact_ros.ros.demo.main import OverlayVideo
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
video = OverlayVideo(Path(sys.argv[1]), 10.0)
video.add(np.zeros((48, 64, 3), np.uint8), 1.0)
try:
    video.close()
except DatasetError as error:
    print(error)
"""


def test_an_overlay_video_that_a_full_disk_cuts_off_is_reported(tmp_path):
    words = [sys.executable, "-c", LIMITED, str(tmp_path / "overlay.mp4")]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "overlay.mp4 is incomplete; check free disk space." in result.stdout


def test_an_overlay_video_without_images_writes_nothing(tmp_path):
    video = OverlayVideo(tmp_path / "overlay.mp4", 10.0)
    assert video.close() == 0 and video.last is None
    assert not (tmp_path / "overlay.mp4").exists()
