"""The soak detects each kind of fault, and a short run of it finds none."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("onnx")

from builtin_interfaces.msg import Time
from rclpy.subscription import Subscription
from soak_test.images import random_compressed, random_image
from soak_test.ledger import Ledger
from soak_test.world import receiver
from std_msgs.msg import Header

from yolact_ros.errors import MessageError
from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.messages.images import bgr_from_message


def result(second, size=(4, 6)):
    stamp = Time(sec=second)
    return InstanceArray(header=Header(stamp=stamp), height=size[0], width=size[1])


@pytest.fixture
def ledger():
    """Record four images at 1, 2, 3 and 0 s, the second of which is damaged."""
    made = Ledger("front")
    for second, size in ((1, (4, 6)), (2, None), (3, (4, 6)), (0, (8, 6))):
        made.send(Time(sec=second), size)
    return made


def test_results_in_the_order_of_the_images_are_right(ledger):
    for second, size in ((1, (4, 6)), (0, (8, 6))):
        ledger.receive(result(second, size), 0)
    assert ledger.faults == [] and ledger.answered == 2


@pytest.mark.parametrize(
    "seconds, size, fault",
    [
        ([2], (4, 6), "image 2 is damaged, but has a result"),
        ([1], (6, 4), "image 1 has the size (4, 6), but its result has the size (6, 4)"),
        ([3, 1], (4, 6), "the result of image 1 arrived after that of image 3"),
        ([3, 3], (4, 6), "the result of image 3 arrived after that of image 3"),
        ([9], (4, 6), "which no image had"),
    ],
)
def test_a_wrong_result_is_a_fault(ledger, seconds, size, fault):
    for second in seconds:
        ledger.receive(result(second, size), 0)
    assert len(ledger.faults) == 1 and fault in ledger.faults[0]


def test_an_image_from_before_a_transition_must_not_be_published_after_it(ledger):
    ledger.close(100)
    ledger.receive(result(1), 99)
    assert ledger.faults == []
    ledger.receive(result(3), 101)
    assert ledger.faults == [
        "front: the result of image 3 arrived after a transition that followed the image."
    ]


@pytest.mark.parametrize(
    "counts, fault",
    [
        ({"received": 4, "processed": 1}, "4 images were received, but 1 have ended"),
        ({"received": 3, "processed": 2, "failed": 2}, "3 images were received, but 4 have"),
        (
            {"received": 5, "processed": 1, "dropped": 4},
            "images were received, but only 4 were sent",
        ),
        ({"received": 2, "processed": 1}, "the count received fell to 2"),
    ],
)
def test_wrong_counts_are_faults(ledger, counts, fault):
    ledger.account(FrameStats(received=3, processed=1), waiting=2)
    assert ledger.faults == []
    ledger.account(FrameStats(**counts), waiting=2)
    assert len(ledger.faults) == 1 and fault in ledger.faults[0]


def test_at_rest_nothing_waits_and_another_configure_counts_from_zero(ledger):
    ledger.account(FrameStats(received=3, processed=2), waiting=2)
    ledger.account(FrameStats(counting_since=Time(sec=5), received=1, stale=1), waiting=2)
    ledger.check_rest()
    assert ledger.faults == []
    ledger.account(FrameStats(counting_since=Time(sec=5), received=2, stale=1), waiting=2)
    ledger.check_rest()
    assert ledger.faults == ["front: 2 images were received, but 1 have ended."]


@pytest.mark.parametrize("make", [random_image, random_compressed])
def test_good_images_can_be_read_and_damaged_ones_cannot(make):
    draw = random.Random(0)
    for _ in range(60):
        message, size = make(draw, Header(), good=True)
        assert bgr_from_message(message).shape == (*size, 3)
        message, _ = make(draw, Header(), good=False)
        with pytest.raises(MessageError):
            bgr_from_message(message)


def test_results_are_checked_where_rclpy_passes_no_message_info(ledger, monkeypatch):
    monkeypatch.delattr(Subscription, "CallbackType", raising=False)  # as on Humble
    check = receiver(ledger)
    check(result(1))
    assert (ledger.answered, ledger.faults) == (1, [])
    check(result(2))
    assert ledger.faults == ["front: image 2 is damaged, but has a result."]


def test_a_soak_finds_no_fault(start):
    program = start("soak", "--minutes", "1")
    assert program.wait(400.0) == 0, program.output
    assert "No faults." in program.output
    for camera in ("front", "rear", "left", "right"):
        assert f"images of the camera {camera}" in program.output


def test_a_duration_of_zero_is_refused(start):
    program = start("soak", "--minutes", "0")
    assert program.wait() == 2
    assert "must be above 0" in program.output
