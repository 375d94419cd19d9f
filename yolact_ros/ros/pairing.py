"""Finding the message of one topic that belongs to a message of another one, by their stamps."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Pairing(Generic[T]):
    """Keeps the newest items of one topic until somebody asks for one by its stamp.

    One thread puts, another one takes, and waits only for what may still come: the middleware
    keeps the order of one publisher, so when something newer has come, the wanted one never will.
    """

    def __init__(self, *, keep: int = 10) -> None:
        """Make an empty one that holds `keep` items."""
        self._changed = threading.Condition()
        self._items: OrderedDict[int, T] = OrderedDict()  # by stamp, in the order of arrival
        self._keep = keep

    def put(self, stamp: int, item: T) -> None:
        """Leave an item; the one that came first goes when there are too many.

        Args:
            stamp: nanoseconds.
            item: replaces another one of the same stamp.
        """
        with self._changed:
            self._items.pop(stamp, None)
            self._items[stamp] = item
            if len(self._items) > self._keep:
                self._items.popitem(last=False)
            self._changed.notify_all()

    def take(self, stamp: int, *, tolerance: int, timeout: float) -> T | None:
        """Give the item of a stamp, or else the nearest one.

        Args:
            stamp: nanoseconds.
            tolerance: nanoseconds by which the stamps may differ.
            timeout: seconds to wait for it at most.

        Returns:
            None if nothing is near enough. The item stays.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while stamp not in self._items and not self._has_passed(stamp):
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            nearest = min(self._items, key=lambda found: abs(found - stamp), default=None)
            if nearest is None or abs(nearest - stamp) > tolerance:
                return None
            return self._items[nearest]

    def _has_passed(self, stamp: int) -> bool:
        return bool(self._items) and next(reversed(self._items)) > stamp
