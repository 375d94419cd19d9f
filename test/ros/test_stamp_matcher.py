from __future__ import annotations

import random
import threading
import time

import pytest

pytest.importorskip("rclpy")

from yolact_ros.ros.inputs.stamp_matcher import StampMatcher

MS = 10**6


def test_an_equal_stamp_is_found_at_once_in_any_order_of_arrival():
    chance = random.Random(4)
    for _ in range(50):
        stamps = chance.sample(range(1000), 10)
        matcher: StampMatcher[str] = StampMatcher()
        for stamp in stamps:
            matcher.put(stamp, str(stamp))
        for stamp in chance.sample(stamps, 10):
            assert matcher.take(stamp, tolerance=0, timeout=0.0) == str(stamp)


def test_with_a_tolerance_it_is_always_the_nearest():
    chance = random.Random(5)
    for _ in range(200):
        stamps = chance.sample(range(1000), chance.randint(0, 8))
        matcher: StampMatcher[int] = StampMatcher()
        for stamp in stamps:
            matcher.put(stamp, stamp)
        wanted, tolerance = chance.randrange(1000), chance.randrange(100)
        near = [stamp for stamp in stamps if abs(stamp - wanted) <= tolerance]
        found = matcher.take(wanted, tolerance=tolerance, timeout=0.0)
        if near:
            assert abs(found - wanted) == min(abs(stamp - wanted) for stamp in near)
        else:
            assert found is None


def test_only_the_newest_items_are_kept_and_one_stamp_holds_one():
    matcher: StampMatcher[str] = StampMatcher(keep=3)
    for stamp in (1, 2, 3, 3, 4):
        matcher.put(stamp, f"item {stamp}")
    assert matcher.take(1, tolerance=0, timeout=0.0) is None
    assert [matcher.take(s, tolerance=0, timeout=0.0) for s in (2, 3, 4)] == [
        "item 2",
        "item 3",
        "item 4",
    ]


def test_items_that_can_no_longer_arrive_are_not_waited_for():
    matcher: StampMatcher[str] = StampMatcher()
    matcher.put(50 * MS, "newer")
    started = time.monotonic()
    assert matcher.take(40 * MS, tolerance=0, timeout=30.0) is None
    assert matcher.take(40 * MS, tolerance=10 * MS, timeout=30.0) == "newer"
    assert time.monotonic() - started < 15.0


def test_a_late_item_is_waited_for_and_the_wait_ends():
    matcher: StampMatcher[str] = StampMatcher()
    matcher.put(1, "older")
    late = threading.Timer(0.1, matcher.put, (7, "late"))
    late.start()
    assert matcher.take(7, tolerance=0, timeout=30.0) == "late"
    late.join()
    assert matcher.take(8, tolerance=0, timeout=0.05) is None


def test_after_a_jump_back_in_time_items_are_found_again():
    matcher: StampMatcher[int] = StampMatcher(keep=4)
    for stamp in (100, 101, 102, 103, 5, 6):
        matcher.put(stamp, stamp)
    assert matcher.take(6, tolerance=0, timeout=0.0) == 6
    late = threading.Timer(0.05, matcher.put, (7, 7))
    late.start()
    assert matcher.take(7, tolerance=0, timeout=30.0) == 7
    late.join()


def test_a_requested_item_is_kept_however_long_processing_takes():
    matcher: StampMatcher[int] = StampMatcher(keep=4)
    matcher.put(10, 10)
    matcher.expect(10, tolerance=0)
    for stamp in range(20, 400, 10):
        matcher.put(stamp, stamp)
    assert matcher.take(10, tolerance=0, timeout=0.0) == 10
    assert matcher.take(390, tolerance=0, timeout=0.0) == 390


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tolerance", [0, 3])
def test_in_lockstep_nothing_is_lost_and_there_is_always_room_again(tolerance, seed):
    """Images come slower than depth, some have none, and the bag is played twice."""
    chance = random.Random(seed)
    stamps = list(range(100, 600, 10))
    without = set(chance.sample(stamps[:-1], 12))
    depths = [(stamp + chance.randint(-tolerance, tolerance), stamp) for stamp in stamps]
    waiting = [(own, image) for own, image in depths if image not in without] * 2
    rooms: list[None] = []
    matcher: StampMatcher[int] = StampMatcher(keep=5, on_room=lambda: rooms.append(None))
    for image in stamps * 2:
        matcher.expect(image, tolerance=tolerance)
        while waiting and not matcher.is_full:
            matcher.put(*waiting.pop(0))
        found = matcher.take(image, tolerance=tolerance, timeout=0.0)
        assert found == (None if image in without else image)
    assert not waiting and rooms
