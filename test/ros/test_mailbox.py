from __future__ import annotations

import random
import threading
import time

import pytest

pytest.importorskip("rclpy")

from yolact_ros.ros.inputs.mailbox import FrameCounts, Inbox


def balanced(counts: FrameCounts) -> bool:
    ended = counts.processed + counts.dropped + counts.stale + counts.failed
    return counts.received == ended + counts.in_flight


def test_the_newest_item_is_taken_and_the_replaced_ones_are_counted():
    inbox: Inbox[str] = Inbox()
    mailbox = inbox.new_mailbox()
    for item in ("first", "second", "third"):
        mailbox.put(item)
    assert inbox.take() == (mailbox, "third")
    assert mailbox.counts() == FrameCounts(received=3, dropped=2, in_flight=1)


def test_an_untouched_mailbox_has_counted_nothing():
    mailbox = Inbox[str]().new_mailbox()
    assert mailbox.counts() == FrameCounts() and not mailbox.is_full


def test_an_item_in_work_is_in_flight_until_it_is_finished():
    inbox: Inbox[str] = Inbox()
    mailbox = inbox.new_mailbox()
    mailbox.put("good")
    inbox.take()
    mailbox.put("waiting")
    assert mailbox.counts() == FrameCounts(received=2, in_flight=2)
    assert mailbox.finish() == FrameCounts(received=2, processed=1, in_flight=1)
    inbox.take()
    assert mailbox.finish("failed") == FrameCounts(received=2, processed=1, failed=1)
    mailbox.put("old")
    inbox.take()
    assert mailbox.finish("stale") == FrameCounts(received=3, processed=1, failed=1, stale=1)


def test_an_ended_inbox_wakes_its_taker_and_drops_what_waits():
    inbox: Inbox[str] = Inbox()
    mailbox = inbox.new_mailbox()
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.append(inbox.take()))
    taker.start()
    inbox.end()
    taker.join(5.0)
    assert taken == [None]
    mailbox.put("late")
    assert mailbox.counts() == FrameCounts(received=1, dropped=1)

    waiting: Inbox[str] = Inbox()
    filled = waiting.new_mailbox()
    filled.put("never taken")
    waiting.end()
    assert waiting.take() is None
    assert filled.counts() == FrameCounts(received=1, dropped=1)


def test_a_closed_inbox_accepts_nothing_until_it_is_opened_again():
    inbox: Inbox[str] = Inbox()
    mailbox = inbox.new_mailbox()
    mailbox.put("waiting")
    assert inbox.close(0.0)
    mailbox.put("refused")
    assert mailbox.counts() == FrameCounts(received=2, dropped=2)
    inbox.open()
    mailbox.put("welcome")
    assert inbox.take() == (mailbox, "welcome")
    assert not inbox.close(0.0), "an item is in work"
    threading.Timer(0.05, mailbox.finish).start()
    assert inbox.close(10.0)


def test_a_mailbox_that_is_skipped_keeps_its_turn():
    inbox: Inbox[str] = Inbox()
    first, second = inbox.new_mailbox(keep=5), inbox.new_mailbox()
    for mailbox, item in ((first, "a"), (first, "b"), (second, "c")):
        mailbox.put(item)
    assert inbox.take() == (first, "a")
    assert inbox.take(besides=[first, second], timeout=0.0) is None
    assert inbox.take(besides=[first]) == (second, "c")
    assert inbox.take(besides=[first], timeout=0.0) is None
    assert inbox.take(besides=[second]) == (first, "b")
    assert inbox.take(timeout=0.0) is None


def test_a_mailbox_that_keeps_all_serves_in_order_and_says_when_it_is_full():
    inbox: Inbox[int] = Inbox()
    notified: list[int] = []
    mailbox = inbox.new_mailbox(keep=3, on_room=lambda: notified.append(len(taken)))
    taken: list[int] = []
    for item in range(3):
        assert not mailbox.is_full
        mailbox.put(item)
    assert mailbox.is_full
    while mailbox.counts().in_flight:
        _, item = inbox.take()
        taken.append(item)
        mailbox.finish()
    assert taken == [0, 1, 2]
    assert notified == [0], "room came once, when the first item was taken"
    assert mailbox.counts() == FrameCounts(received=3, processed=3)


def test_a_fast_camera_and_busy_slow_ones_are_served_in_turn():
    """The fast camera's image is always the newest, yet it is served in its turn."""
    inbox: Inbox[str] = Inbox()
    fast, slow, slower = (inbox.new_mailbox() for _ in range(3))
    served = []
    for mailbox, name in ((slow, "slow"), (fast, "fast"), (slower, "slower")):
        mailbox.put(name)
    for _ in range(9):
        for _ in range(10):
            fast.put("fast")
        mailbox, name = inbox.take()
        served.append(name)
        mailbox.finish()
        if mailbox is not fast:
            mailbox.put(name)  # a new image before the next one is taken
    assert served == ["slow", "fast", "slower"] * 3


@pytest.mark.parametrize("seed", range(4))
def test_counts_balance_at_every_instant_under_random_timing(seed):
    inbox: Inbox[int] = Inbox()
    keep = seed % 2 * 5
    mailboxes = [inbox.new_mailbox(), inbox.new_mailbox(keep=keep), inbox.new_mailbox()]
    chance = random.Random(seed)
    pauses = [chance.choice([0, 0, 0, 1e-4, 1e-3]) for _ in range(400)]
    outcomes = [chance.choice(["processed", "processed", "stale", "failed"]) for _ in range(400)]
    places = [chance.choice(mailboxes) for _ in range(400)]
    taken: dict[object, list[int]] = {mailbox: [] for mailbox in mailboxes}
    unbalanced: list[FrameCounts] = []

    def work() -> None:
        while (found := inbox.take()) is not None:
            mailbox, item = found
            taken[mailbox].append(item)
            time.sleep(pauses[-item])
            mailbox.finish(outcomes[item])

    def watch() -> None:
        while worker.is_alive():
            counts = [mailbox.counts() for mailbox in mailboxes]
            unbalanced.extend(one for one in counts if not balanced(one))
            time.sleep(1e-4)

    worker = threading.Thread(target=work)
    watcher = threading.Thread(target=watch)
    worker.start()
    watcher.start()
    for item in range(1, 400):
        if item == 200:  # the node is deactivated for a while
            inbox.close(timeout=chance.choice([0.0, 1.0]))
        if item == 240:
            inbox.open()
        places[item].put(item)
        time.sleep(pauses[item])
    inbox.end()
    worker.join(10.0)
    watcher.join(10.0)

    assert not unbalanced
    for mailbox in mailboxes:
        counts = mailbox.counts()
        items = taken[mailbox]
        assert balanced(counts) and counts.in_flight == 0
        assert counts.received == sum(place is mailbox for place in places[1:])
        for outcome in ("processed", "stale", "failed"):
            expected = sum(outcomes[item] == outcome for item in items)
            assert getattr(counts, outcome) == expected
        assert items == sorted(items), "an older item came after a newer one"
