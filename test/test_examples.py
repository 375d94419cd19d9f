"""The programs in `examples/` run as a user runs them."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import recorded

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
CLIP = ROOT / "models" / "demo" / "tabletop.mp4"


def run(program, *arguments, folder):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / program), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def first_image(folder):
    import cv2

    good, image = cv2.VideoCapture(str(CLIP)).read()
    assert good
    path = folder / "picture.png"
    assert cv2.imwrite(str(path), image)
    return path


def test_the_instances_of_a_picture_are_printed_and_drawn(tmp_path):
    done = run("picture.py", first_image(tmp_path), "-o", tmp_path / "drawn.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    count = int(re.search(r"(\d+) instances", done.stdout)[1])
    assert count >= 5 and "mug" in done.stdout
    assert (tmp_path / "drawn.png").read_bytes() != (tmp_path / "picture.png").read_bytes()


def test_a_picture_without_instances_and_an_invalid_one(tmp_path):
    coffee = recorded.DATA / "parity" / "coffee.webp"
    done = run("picture.py", coffee, "--model", "tools", folder=tmp_path)
    assert done.returncode == 0 and done.stdout == "0 instances\n"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    done = run("picture.py", "broken.png", folder=tmp_path)
    assert done.returncode == 1 and "cannot be read" in done.stderr


def test_objects_of_a_video_keep_their_ids(tmp_path):
    done = run("video.py", CLIP, "--frames", 12, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    seen = [int(n) for n in re.findall(r"seen on (\d+) of 12 images", done.stdout)]
    assert sum(images >= 8 for images in seen) >= 3


def test_an_object_is_measured_from_its_mask(capfd):
    rclpy = pytest.importorskip("rclpy")
    import numpy as np

    from yolact_ros.msg import Instance, InstanceArray

    program = runpy.run_path(str(EXAMPLES / "measure_objects.py"))
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 5:45] = 255  # 40 pixels wide, 10 high
    instance = Instance(class_name="bar", track_id=7, mask_encoding=Instance.MASK_MONO8)
    instance.roi.height, instance.roi.width = mask.shape
    instance.roi.x_offset = 100
    instance.mask = mask.tobytes()
    nothing = Instance(class_name="speck", mask_encoding=Instance.MASK_MONO8)  # an empty roi
    rclpy.init()
    node = program["ObjectMeasurer"]()
    try:
        node.on_instances(InstanceArray(instances=[instance, nothing]))
        node.on_instances(InstanceArray())
    finally:
        node.destroy_node()
        rclpy.shutdown()
    printed = capfd.readouterr().err
    measured = re.search(r"bar 7: (\d+) x (\d+) pixels, (\d+) degrees, at \((\d+)", printed)
    length, width, angle, x = map(float, measured.groups())
    assert length == pytest.approx(40, abs=2) and width == pytest.approx(10, abs=2)
    assert angle % 180 == 0 and x == pytest.approx(124.5, abs=1)
    assert "speck" not in printed


def test_the_nearest_obstacle_in_the_corridor_is_reported(capfd):
    rclpy = pytest.importorskip("rclpy")
    from visualization_msgs.msg import Marker, MarkerArray

    program = runpy.run_path(str(EXAMPLES / "obstacles.py"))

    def box(number, name, *, x, z):
        cube = Marker(ns="boxes", id=number, type=Marker.CUBE)
        cube.pose.position.x, cube.pose.position.z = x, z
        cube.scale.x, cube.scale.y, cube.scale.z = 0.2, 0.2, 0.4
        return [cube, Marker(ns="names", id=number, type=Marker.TEXT_VIEW_FACING, text=name)]

    first = Marker(action=Marker.DELETEALL)
    far, near, beside = (
        box(1, "mug", x=0.0, z=2.0),
        box(2, "#4 dining table", x=0.3, z=1.2),
        box(3, "duck", x=2.0, z=0.5),
    )
    rclpy.init()
    node = program["ObstacleWatcher"]()
    try:
        node.on_markers(MarkerArray(markers=[first, *far, *near, *beside]))
        node.on_markers(MarkerArray(markers=[first]))
    finally:
        node.destroy_node()
        rclpy.shutdown()
    printed = capfd.readouterr().err
    assert " dining table in 1.00 m" in printed and "The way is clear." in printed
    assert "duck" not in printed and "mug" not in printed
