"""Match messages of one topic with those of another by stamp."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class StampMatcher(Generic[T]):
    """Keeps items of one topic until they are taken by stamp.

    One thread puts items; others announce the stamp that they are processing, then take, and wait
    only for an item that may still arrive: the middleware keeps the order of one publisher, so
    once a newer item has arrived, the requested one never will.
    """

    def __init__(self, *, keep: int = 10, on_room: Callable[[], None] | None = None) -> None:
        """Create an empty matcher.

        Args:
            keep: maximum number of items.
            on_room: if given, no item that may still be requested is discarded: the thread that
                puts items must check `is_full` first; this is called when there is room again.
        """
        self._changed = threading.Condition()
        self._items: OrderedDict[int, T] = OrderedDict()  # by stamp, in order of arrival
        self._keep = keep
        self._on_room = on_room
        self._wanted: int | None = None
        self._closed = False
        self._gone: int | None = None  # last stamp discarded by `expect`, unless time jumped back

    @property
    def is_full(self) -> bool:
        """Return whether there is no room for another item; always false without `on_room`."""
        return self._on_room is not None and len(self._items) >= self._keep

    def put(self, stamp: int, item: T) -> None:
        """Add an item; if there are too many, discard the oldest that is not requested.

        Args:
            stamp: nanoseconds.
            item: replaces another item with the same stamp.
        """
        with self._changed:
            self._items.pop(stamp, None)
            self._items[stamp] = item
            if self._on_room is None and len(self._items) > self._keep:
                # One inference may take longer than many items take to arrive.
                nearest = None if self._wanted is None else self._nearest(self._wanted)
                del self._items[next(found for found in self._items if found != nearest)]
            self._changed.notify_all()

    def expect(self, stamp: int, *, tolerance: int) -> None:
        """Announce which item will be taken next, so that earlier ones may be discarded.

        Args:
            stamp: nanoseconds.
            tolerance: maximum difference between the stamps in nanoseconds.
        """
        with self._changed:
            was_full = self.is_full
            before, self._wanted = self._wanted, stamp
            jumped_from = before if before is not None and stamp < before else None
            if jumped_from is not None:
                self._gone = None
            while self._items and self._is_useless(
                next(iter(self._items)), stamp, tolerance=tolerance, jumped_from=jumped_from
            ):
                self._gone, _ = self._items.popitem(last=False)
            has_room = was_full and not self.is_full
        if has_room and self._on_room is not None:
            self._on_room()

    def take(self, stamp: int, *, tolerance: int, timeout: float) -> T | None:
        """Return the item with the given stamp, or else the nearest one.

        Args:
            stamp: nanoseconds.
            tolerance: maximum difference between the stamps in nanoseconds.
            timeout: maximum wait in seconds.

        Returns:
            None if no item is near enough. The item is kept for other callers.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while not (self._closed or stamp in self._items or self._has_passed(stamp)):
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            nearest = self._nearest(stamp)
            if nearest is None or abs(nearest - stamp) > tolerance:
                return None
            return self._items[nearest]

    def close(self) -> None:
        """Wake all waiting threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_useless(
        self, first: int, stamp: int, *, tolerance: int, jumped_from: int | None
    ) -> bool:
        """Return whether the oldest item can be discarded."""
        if first > stamp + tolerance:
            # After a jump: the items before it that nobody has asked for.
            return jumped_from is not None and first >= jumped_from - tolerance
        if first >= stamp - tolerance:
            return False
        # An item older than a discarded one is ahead: its topic has already jumped back.
        is_ahead = self._gone is not None and first < self._gone
        return not is_ahead or self.is_full

    def _nearest(self, stamp: int) -> int | None:
        return min(self._items, key=lambda found: abs(found - stamp), default=None)

    def _has_passed(self, stamp: int) -> bool:
        return bool(self._items) and next(reversed(self._items)) > stamp
