from __future__ import annotations

import random
import threading
import time

import pytest

pytest.importorskip("rclpy")

from yolact_ros.ros.mailbox import FrameCounts, Mailbox


def balanced(counts: FrameCounts) -> bool:
    ended = counts.processed + counts.dropped + counts.stale + counts.failed
    return counts.received == ended + counts.in_flight


def test_the_newest_item_is_taken_and_the_replaced_ones_are_counted():
    mailbox: Mailbox[str] = Mailbox()
    for item in ("first", "second", "third"):
        mailbox.put(item)
    assert mailbox.take() == "third"
    assert mailbox.counts() == FrameCounts(received=3, dropped=2, in_flight=1)


def test_an_untouched_mailbox_has_counted_nothing():
    assert Mailbox().counts() == FrameCounts()


def test_an_item_in_work_is_in_flight_until_it_is_finished():
    mailbox: Mailbox[str] = Mailbox()
    mailbox.put("good")
    mailbox.take()
    mailbox.put("waiting")
    assert mailbox.counts() == FrameCounts(received=2, in_flight=2)
    assert mailbox.finish() == FrameCounts(received=2, processed=1, in_flight=1)
    mailbox.take()
    assert mailbox.finish(failed=True) == FrameCounts(received=2, processed=1, failed=1)


def test_a_closed_mailbox_wakes_its_taker_and_drops_what_waits():
    mailbox: Mailbox[str] = Mailbox()
    taken: list[str | None] = []
    taker = threading.Thread(target=lambda: taken.append(mailbox.take()))
    taker.start()
    mailbox.close()
    taker.join(5.0)
    assert taken == [None]
    mailbox.put("late")
    assert mailbox.counts() == FrameCounts(received=1, dropped=1)

    waiting: Mailbox[str] = Mailbox()
    waiting.put("never taken")
    waiting.close()
    assert waiting.take() is None
    assert waiting.counts() == FrameCounts(received=1, dropped=1)


@pytest.mark.parametrize("seed", range(4))
def test_accounts_balance_at_every_instant_under_random_timing(seed):
    mailbox: Mailbox[int] = Mailbox()
    chance = random.Random(seed)
    pauses = [chance.choice([0, 0, 0, 1e-4, 1e-3]) for _ in range(400)]
    fails = [chance.random() < 0.2 for _ in range(400)]
    taken: list[int] = []
    unbalanced: list[FrameCounts] = []

    def work() -> None:
        while (item := mailbox.take()) is not None:
            taken.append(item)
            time.sleep(pauses[-item])
            mailbox.finish(failed=fails[item])

    def watch() -> None:
        while worker.is_alive():
            counts = mailbox.counts()
            if not balanced(counts):
                unbalanced.append(counts)

    worker = threading.Thread(target=work)
    watcher = threading.Thread(target=watch)
    worker.start()
    watcher.start()
    for item in range(1, 400):
        mailbox.put(item)
        time.sleep(pauses[item])
    mailbox.close()
    worker.join(10.0)
    watcher.join(10.0)

    counts = mailbox.counts()
    assert not unbalanced
    assert balanced(counts) and counts.received == 399 and counts.in_flight == 0
    assert counts.processed == sum(not fails[item] for item in taken)
    assert counts.failed == sum(fails[item] for item in taken)
    assert taken == sorted(taken), "an older item came after a newer one"
