"""The node runs in its own process, over real DDS, with a real network (conftest.py)."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from full_masks import full_mask_from_message
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image

from yolact_ros.errors import BundleError
from yolact_ros.msg import Instance, InstanceArray
from yolact_ros.ros.messages.images import bgr_from_message
from yolact_ros.runtime.shipped import shipped_file

# The network's masks have 16x16 cells; these rectangles end at cell borders of both image sizes,
# so that boxes must be exact, and masks but for their corners. Best class first.
SQUARE = {"blue": (32, 16, 96, 80), "green": (112, 0, 256, 48), "red": (0, 128, 80, 256)}
WIDE = {"blue": (20, 30, 160, 75), "red": (200, 150, 320, 240)}
# A signal must end the node within 2 s of an idle machine; this leaves room for a busy one.
END_S = 5.0
SCORES = {"blue": 0.9, "green": 0.8, "red": 0.7}


def names(result: InstanceArray) -> list[str]:
    return [instance.class_name for instance in result.instances]


def corner_cells(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels near the corners, which bilinear enlargement rounds off."""
    near = np.zeros(size, bool)
    down, right = size[0] // 32, size[1] // 32
    for x in (box[0], box[2]):
        for y in (box[1], box[3]):
            near[max(0, y - down) : y + down, max(0, x - right) : x + right] = True
    return near


def test_known_images_give_the_right_instances(start_node, client, image_with):
    start_node()
    for rectangles, size in ((SQUARE, (256, 256)), (WIDE, (240, 320)), (SQUARE, (256, 256))):
        result = client.ask(image_with(rectangles, size))
        assert (result.height, result.width) == size
        assert result.frame_type == InstanceArray.KEYFRAME
        assert result.keyframe_stamp == result.header.stamp
        assert names(result) == list(rectangles)
        assert [i.instance_id for i in result.instances] == list(range(1, len(rectangles) + 1))
        for instance in result.instances:
            x1, y1, x2, y2 = rectangles[instance.class_name]
            box = [instance.x_min, instance.y_min, instance.x_max, instance.y_max]
            assert box == pytest.approx([x1, y1, x2, y2], abs=1e-3)
            assert instance.score == pytest.approx(SCORES[instance.class_name])
            mask = full_mask_from_message(instance, result.height, width=result.width)
            expected = np.zeros(size, bool)
            expected[y1:y2, x1:x2] = True
            exact = ~corner_cells((x1, y1, x2, y2), size)
            assert np.array_equal(mask & exact, expected & exact)
            assert not (mask & ~expected).any()
            assert instance.area == mask.sum()


def test_an_image_without_objects_gives_an_empty_result(start_node, client, image_with):
    start_node()
    result = client.ask(image_with({}, (48, 64)))
    assert len(result.instances) == 0 and (result.height, result.width) == (48, 64)
    one_pixel = client.ask(image_with({}, (1, 1)))
    assert len(one_pixel.instances) == 0 and (one_pixel.height, one_pixel.width) == (1, 1)


def test_colours_are_right_in_every_encoding(start_node, client, image_with):
    start_node()
    bgr = image_with({"blue": (0, 0, 64, 64)}, (128, 128))
    alpha = np.zeros((128, 128, 1), np.uint8)
    for encoding, image in {
        "rgb8": bgr[..., ::-1],
        "bgra8": np.concatenate([bgr, alpha], axis=2),
        "rgba8": np.concatenate([bgr[..., ::-1], alpha], axis=2),
    }.items():
        assert names(client.ask(image, encoding)) == ["blue"], encoding
    assert names(client.ask(bgr[..., :1], "mono8")) == []


def test_a_bad_image_is_counted_and_survived(start_node, client, image_with):
    node = start_node()
    good = image_with(SQUARE, (256, 256))
    client.ask(good)
    for _ in range(20):
        client.send(np.zeros((8, 8, 2), np.uint8), "16UC1")
        if client.spin_until(lambda: "16UC1" in node.output, 0.5):
            break
    for _ in range(5):
        client.send(np.zeros((8, 8, 2), np.uint8), "16UC1")
        client.spin_until(lambda: False, 0.1)
    assert names(client.ask(good)) == list(SQUARE)
    client.spin_until(lambda: client.stats and client.stats[-1].failed)
    assert client.stats[-1].failed >= 2
    errors = [line for line in node.lines if "16UC1" in line]
    assert len(errors) == 1, "one line in five seconds"
    assert "bgr8, 8UC3, rgb8, bgra8, rgba8, mono8, 8UC1" in errors[0]


def test_thresholds_and_mask_form_change_while_the_node_runs(start_node, client, image_with):
    start_node()
    image = image_with(SQUARE, (256, 256))
    assert names(client.ask(image)) == ["blue", "green", "red"]

    answer = client.set_parameters(
        Parameter("score_threshold", value=0.75), Parameter("mask_encoding", value="rle")
    )
    assert answer.successful
    result = client.ask(image)
    assert names(result) == ["blue", "green"]
    assert {i.mask_encoding for i in result.instances} == {Instance.MASK_RLE}

    # Of a set with one bad value, nothing is taken.
    answer = client.set_parameters(
        Parameter("score_threshold", value=0.1), Parameter("mask_encoding", value="png")
    )
    assert not answer.successful and "bits, mono8, rle, none" in answer.reason
    assert names(client.ask(image)) == ["blue", "green"]

    answer = client.set_parameters(Parameter("model", value="another"))
    assert not answer.successful and "cleanup" in answer.reason
    assert client.set_parameters(Parameter("max_detections", value=1)).successful
    assert names(client.ask(image)) == ["blue"]


def test_the_overlay_shows_what_was_found(start_node, client, image_with):
    start_node()
    overlays: list[Image] = []
    client.node.create_subscription(Image, "yolact/overlay", overlays.append, 10)
    topic = f"{client.namespace}/yolact/overlay"
    client.spin_until(lambda: client.node.count_publishers(topic))
    image = image_with({"blue": (32, 16, 96, 80)}, (256, 256))
    for _ in range(10):
        result = client.ask(image)
        if client.spin_until(lambda: overlays, 1.0):
            break
    assert client.spin_until(lambda h=result.header: any(o.header == h for o in overlays))
    drawn = bgr_from_message(overlays[-1]).astype(int)
    assert drawn.shape == image.shape
    changed = np.abs(drawn - image).max(axis=2) > 20
    assert changed[20:76, 36:92].mean() > 0.95 and changed[100:, 100:].mean() == 0


def test_every_image_is_accounted_for_when_they_come_too_fast(start_node, client, image_with):
    start_node()
    image = image_with(SQUARE, (512, 512))
    client.ask(image)
    client.results.clear()
    sent = 0
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        client.send(image)
        sent += 1
        client.spin_until(lambda: False, 0.001)
    assert client.spin_until(
        lambda: (
            client.stats
            and client.stats[-1].received
            == client.stats[-1].processed + client.stats[-1].dropped + client.stats[-1].failed
        )
    )
    last = client.stats[-1]
    assert last.failed == 0 and last.stale == 0
    assert last.received <= sent + 5
    assert client.spin_until(lambda: len(client.results) >= last.processed - 5)
    stamps = [(r.header.stamp.sec, r.header.stamp.nanosec) for r in client.results]
    assert stamps == sorted(set(stamps)), "each image once, none older than the one before"
    for one in client.stats:
        ended = one.processed + one.dropped + one.failed
        assert 0 <= one.received - ended <= 1, "beyond those that ended, one may wait"


def test_stats_say_where_the_time_went(start_node, client, image_with):
    start_node()
    result = client.ask(image_with(SQUARE, (256, 256)))
    assert client.spin_until(lambda: any(s.header == result.header for s in client.stats))
    stats = next(s for s in client.stats if s.header == result.header)
    assert stats.instances == 3 and stats.frame_type == InstanceArray.KEYFRAME
    parts = [stats.wait_ms, stats.decode_ms, stats.preprocess_ms, stats.inference_ms]
    parts += [stats.postprocess_ms, stats.publish_ms]
    assert all(0 <= part < 5000 for part in parts)
    # The client's stamps are of the year 2023: the latency starts there.
    age = (time.time() - result.header.stamp.sec) * 1e3
    assert stats.latency_ms == pytest.approx(age, rel=1e-3)
    assert stats.transport_ms == pytest.approx(age, rel=1e-3)


def test_an_image_without_a_stamp_has_no_age(start_node, client, image_with):
    start_node()
    image = image_with(SQUARE, (256, 256))
    message = Image(height=256, width=256, encoding="bgr8", step=3 * 256)
    message.data.frombytes(image.tobytes())
    for _ in range(5):
        client.camera.publish(message)
        if client.spin_until(lambda: client.stats, 4.0):
            break
    stats = client.stats[0]
    assert stats.instances == 3
    assert math.isnan(stats.latency_ms) and math.isnan(stats.transport_ms)
    assert 0 <= stats.wait_ms < 5000
    # The result of the first image is lost if the node had not discovered the client yet.
    assert stats.keyframe_reason == ("first" if stats.processed == 1 else "interval")


def test_the_subscription_obeys_qos_overrides(start, client, squares_bundle):
    topic = f"{client.namespace}/image"
    start(
        "yolact_node",
        ros_arguments=(
            *("-r", f"__ns:={client.namespace}", "-p", f"model:={squares_bundle}"),
            *("-p", f"qos_overrides.{topic}.subscription.reliability:=reliable"),
        ),
    )
    client.connect()
    (info,) = client.node.get_subscriptions_info_by_topic(topic)
    assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_node_cleanly(start_node, client, image_with, number):
    node = start_node()
    client.ask(image_with(SQUARE, (256, 256)))
    status, seconds = node.end(number)
    assert status == 0
    assert seconds < END_S
    assert "Traceback" not in node.output and "rror" not in node.output


def test_signals_one_after_another_end_the_node_cleanly(start_node):
    """Both the terminal and launch may pass Ctrl-C on."""
    node = start_node()
    while node.process.poll() is None:
        node.process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert node.wait() == 0
    assert "Traceback" not in node.output


def test_a_signal_in_the_middle_of_the_work_ends_the_node_cleanly(start_node, client, image_with):
    node = start_node()
    image = image_with(SQUARE, (1024, 1024))
    for _ in range(30):
        client.send(image)
        client.spin_until(lambda: False, 0.01)
    status, seconds = node.end()
    assert status == 0
    assert seconds < END_S
    assert "Traceback" not in node.output and "rror" not in node.output


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has installed a handler of a signal, as Linux reports it."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("delay", [0.0, 0.3, 0.6, 0.9, 1.2])
def test_a_signal_while_the_node_starts_ends_it_cleanly(start, squares_bundle, delay):
    node = start("yolact_node", ros_arguments=("-p", f"model:={squares_bundle}"))
    deadline = time.monotonic() + 60.0
    while not catches(node.process.pid, signal.SIGTERM):  # until then, Python itself starts
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    status, seconds = node.end()
    assert status == 0 and "Traceback" not in node.output
    assert seconds < END_S


def test_a_missing_bundle_ends_the_node_with_an_error_message(start, tmp_path):
    missing = tmp_path / "nothing here"
    node = start("yolact_node", ros_arguments=("-p", f"model:={missing}"))
    assert node.wait() == 1
    assert str(missing) in node.output and "yolact export" in node.output
    assert "Traceback" not in node.output


def test_an_altered_bundle_ends_the_node_with_an_error_message(start, squares_bundle, tmp_path):
    altered = shutil.copytree(squares_bundle, tmp_path / "altered")
    graph = json.loads((altered / "model.json").read_text())["graphs"]["detect"]["file"]
    with (altered / graph).open("ab") as file:
        file.write(b"?")
    node = start("yolact_node", ros_arguments=("-p", f"model:={altered}"))
    assert node.wait() == 1
    assert str(altered / graph) in node.output and "altered" in node.output
    assert "Traceback" not in node.output


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ("score_threshold:=1.5", "score_threshold"),
        ("score_threshold:=high", "score_threshold"),
        ("max_detections:=0", "max_detections"),
        ("mask_encoding:=png", "bits, mono8, rle, none"),
        ("backend:=abacus", "auto, onnxruntime, openvino, tensorrt, torch"),
        ("model:=", "command line"),
    ],
)
def test_a_bad_parameter_ends_the_node_with_an_error_message(start, parameter, expected):
    node = start("yolact_node", ros_arguments=("-p", parameter))
    assert node.wait() == 1
    assert expected in node.output
    assert "Traceback" not in node.output


def test_the_shipped_model_finds_objects_in_the_shipped_clip(start_node, client):
    try:
        clip = shipped_file("models/demo/tabletop.mp4")
        shipped_file("models/tabletop/model.json")
    except BundleError as error:
        pytest.skip(str(error))
    start_node(model=None)
    video = cv2.VideoCapture(str(clip))
    found = 0
    for _ in range(3):
        ok, image = video.read()
        assert ok
        result = client.ask(image)
        assert (result.height, result.width) == image.shape[:2]
        found += len(result.instances)
        for instance in result.instances:
            mask = full_mask_from_message(instance, result.height, width=result.width)
            assert mask.sum() == instance.area
    video.release()
    assert found >= 3


def test_a_node_that_cannot_write_its_log_names_the_variable_to_set(start, monkeypatch):
    """A container's user may have no home directory."""
    monkeypatch.setenv("HOME", "/proc/no_home")
    for name in ("ROS_LOG_DIR", "ROS_HOME"):
        monkeypatch.delenv(name, raising=False)
    node = start("yolact_node")
    assert node.wait() == 1
    assert "Set ROS_LOG_DIR to a folder" in node.output and "Traceback" not in node.output
