"""Pass images from the cameras to the network and account for every one of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Outcome = Literal["processed", "stale", "failed"]
COUNTED = ("received", "processed", "dropped", "stale", "failed")  # since the start


@dataclass(frozen=True)
class FrameCounts:
    """Counts what has happened to the images of one camera up to one instant.

    `received = processed + dropped + stale + failed + in_flight` holds at every instant.

    Attributes:
        received: put into the mailbox.
        processed: finished and published.
        dropped: replaced by a newer image, or waiting when the node was deactivated.
        stale: too old when their turn came.
        failed: could not be converted or segmented.
        in_flight: waiting or being processed.
    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    stale: int = 0
    failed: int = 0
    in_flight: int = 0


class Inbox(Generic[T]):
    """Holds the mailboxes of several cameras, emptied by one worker.

    The camera whose mailbox has been non-empty longest is served first. The age of its newest
    image does not matter: images of a fast camera are always young, so it would starve next to
    slow ones. Thread-safe.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Mailbox[T]] = deque()  # non-empty mailboxes, longest wait first
        self._mailboxes: list[Mailbox[T]] = []
        self._is_open = True
        self._ended = False

    def new_mailbox(
        self, *, keep: int = 0, on_room: Callable[[], None] | None = None
    ) -> Mailbox[T]:
        """Add the mailbox of one camera.

        Args:
            keep: 0 keeps only the newest item; otherwise all are kept and served in order, and the
                mailbox reports itself full at this number of items.
            on_room: called by the worker when a full mailbox has room again.
        """
        mailbox = Mailbox(self, self._changed, keep=keep, on_room=on_room)
        self._mailboxes.append(mailbox)
        return mailbox

    def take(
        self, timeout: float | None = None, *, besides: Collection[Mailbox[T]] = ()
    ) -> tuple[Mailbox[T], T] | None:
        """Wait for an item; return None after `end`, or after `timeout` seconds.

        `Mailbox.finish` completes the work on it.

        Args:
            timeout: None waits forever.
            besides: mailboxes to skip.
        """

        def turn() -> Mailbox[T] | None:
            return next((mailbox for mailbox in self._waiting if mailbox not in besides), None)

        with self._changed:
            self._changed.wait_for(lambda: turn() or self._ended, timeout)
            mailbox = turn()
            if self._ended or mailbox is None:
                return None
            self._waiting.remove(mailbox)
            was_full = mailbox.is_full
            item = mailbox._items.popleft()
            mailbox._in_work += 1
            if mailbox._items:
                self._waiting.append(mailbox)
        if was_full and mailbox._on_room is not None:
            mailbox._on_room()
        return mailbox, item

    def open(self) -> None:
        """Accept items, as a new inbox does."""
        with self._changed:
            self._is_open = True

    def close(self, timeout: float) -> bool:
        """Stop accepting items, drop those that wait, and wait for those being processed.

        Args:
            timeout: maximum wait in seconds.

        Returns:
            False if an item is still being processed.
        """
        with self._changed:
            self._is_open = False
            self._waiting.clear()
            for mailbox in self._mailboxes:
                mailbox._drop_all()
            return self._changed.wait_for(
                lambda: not any(mailbox._in_work for mailbox in self._mailboxes), timeout
            )

    def end(self) -> None:
        """Close the inbox and let `take` return None from now on."""
        self.close(timeout=0.0)
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Mailbox(Generic[T]):
    """Holds the newest item of one camera, or all items in order, until they are taken.

    In a queue, every image would grow as old as the queue is long, so the usual mailbox holds one
    image and counts those that were replaced. Created by `Inbox.new_mailbox`.
    """

    def __init__(
        self,
        inbox: Inbox[T],
        changed: threading.Condition,
        *,
        keep: int,
        on_room: Callable[[], None] | None,
    ) -> None:
        self._inbox = inbox
        self._changed = changed
        self._keep = keep
        self._on_room = on_room
        self._items: deque[T] = deque()
        self._in_work = 0
        self._counts = FrameCounts()

    @property
    def is_full(self) -> bool:
        """Return whether a mailbox that keeps all items is full."""
        return bool(self._keep) and len(self._items) >= self._keep

    def put(self, item: T) -> None:
        """Put an item; unless all are kept, it replaces the waiting item."""
        with self._changed:
            self._count("received")
            if not self._inbox._is_open:
                self._count("dropped")
                return
            if not self._items:
                self._inbox._waiting.append(self)
                self._changed.notify_all()
            elif not self._keep:
                self._drop_all()
            self._items.append(item)

    def finish(self, outcome: Outcome = "processed") -> FrameCounts:
        """Count a taken item as finished and return the counts of this instant."""
        with self._changed:
            self._in_work -= 1
            self._count(outcome)
            self._changed.notify_all()
            return self._accounts()

    def note_failure(self) -> None:
        """Count an item that could not be received as failed."""
        with self._changed:
            self._count("received")
            self._count("failed")

    def counts(self) -> FrameCounts:
        """Return the counts of this instant."""
        with self._changed:
            return self._accounts()

    # The methods below require the lock.

    def _drop_all(self) -> None:
        self._count("dropped", len(self._items))
        self._items.clear()

    def _count(self, what: str, number: int = 1) -> None:
        self._counts = replace(self._counts, **{what: getattr(self._counts, what) + number})

    def _accounts(self) -> FrameCounts:
        return replace(self._counts, in_flight=self._in_work + len(self._items))
