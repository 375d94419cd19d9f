"""The one-slot mailbox between camera and network, with exact accounts of every image."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class FrameCounts:
    """What became of the images, at one instant.

    `received = processed + dropped + stale + failed + in_flight` holds at every instant.

    Attributes:
        received: put into the mailbox.
        processed: finished and published.
        dropped: replaced in the slot by a newer image.
        stale: too old when their turn came.
        failed: could not be converted or segmented.
        in_flight: waiting in the slot or in work.
    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    stale: int = 0
    failed: int = 0
    in_flight: int = 0


class Mailbox(Generic[T]):
    """Holds the newest item until somebody takes it; safe between threads.

    A queue would make every image as old as the queue is long; here work always starts on the
    newest one, and each that it replaced is counted.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slot: T | None = None
        self._in_work = 0
        self._received = 0
        self._processed = 0
        self._dropped = 0
        self._failed = 0
        self._closed = False

    def put(self, item: T) -> None:
        """Leave an item; one that nobody has taken yet is dropped."""
        with self._changed:
            self._received += 1
            if self._slot is not None or self._closed:
                self._dropped += 1
            if not self._closed:
                self._slot = item
                self._changed.notify()

    def take(self) -> T | None:
        """Wait for an item; None when the mailbox is closed. `finish` ends the work on it."""
        with self._changed:
            while self._slot is None and not self._closed:
                self._changed.wait()
            item, self._slot = self._slot, None
            if item is not None:
                self._in_work += 1
            return item

    def finish(self, *, failed: bool = False) -> FrameCounts:
        """Account for an item that was taken: processed, unless it failed."""
        with self._changed:
            self._in_work -= 1
            if failed:
                self._failed += 1
            else:
                self._processed += 1
            return self._counts()

    def close(self) -> None:
        """Wake the taker and end its work; an item still waiting is dropped."""
        with self._changed:
            self._closed = True
            if self._slot is not None:
                self._slot = None
                self._dropped += 1
            self._changed.notify_all()

    def counts(self) -> FrameCounts:
        """Give the accounts of this instant."""
        with self._changed:
            return self._counts()

    def _counts(self) -> FrameCounts:
        return FrameCounts(
            received=self._received,
            processed=self._processed,
            dropped=self._dropped,
            failed=self._failed,
            in_flight=self._in_work + (self._slot is not None),
        )
