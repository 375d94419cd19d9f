"""Account for one camera: what was sent, what may come back, and what is wrong with it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time

from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.inputs.mailbox import COUNTED
from yolact_ros.runtime.stamps import nanoseconds

REMEMBERED = 5000  # images; a result of an older one is itself a fault


@dataclass(frozen=True)
class Sent:
    """Records one published image.

    Attributes:
        number: sequence number among the images of its camera, from 1.
        size: (height, width) in pixels; None if it is damaged and must not be answered.
    """

    number: int
    size: tuple[int, int] | None


@dataclass
class Ledger:
    """Compares the results and statistics of one camera with the images that were sent to it.

    Attributes:
        sent: number of images published.
        answered: number of results received.
        faults: what was wrong, one sentence each.
    """

    camera: str
    sent: int = 0
    answered: int = 0
    faults: list[str] = field(default_factory=list)
    _images: OrderedDict[int, Sent] = field(default_factory=OrderedDict)
    _last: int = 0  # number of the last answered image
    _closed: int = 0  # images up to this number must not be answered any more
    _closed_at: int = 0  # system time in ns at which they were closed
    _stats: FrameStats | None = None

    def send(self, stamp: Time, size: tuple[int, int] | None) -> None:
        """Record an image that is about to be published; its stamp must be unique."""
        self.sent += 1
        self._images[nanoseconds(stamp)] = Sent(self.sent, size)
        if len(self._images) > REMEMBERED:
            self._images.popitem(last=False)

    def close(self, moment: int) -> None:
        """Allow no more results of the images so far.

        Args:
            moment: time in nanoseconds from which on none may be published.
        """
        self._closed, self._closed_at = self.sent, moment

    def receive(self, result: InstanceArray, published: int) -> None:
        """Check one result.

        Args:
            result: the result message.
            published: system time in nanoseconds at which the node published it.
        """
        self.answered += 1
        image = self._images.get(nanoseconds(result.header.stamp))
        if image is None:
            self._note(f"a result has the stamp {result.header.stamp}, which no image had")
            return
        name = f"image {image.number}"
        if image.size is None:
            self._note(f"{name} is damaged, but has a result")
        elif (result.height, result.width) != image.size:
            size = (result.height, result.width)
            self._note(f"{name} has the size {image.size}, but its result has the size {size}")
        if image.number <= self._last:
            self._note(f"the result of {name} arrived after that of image {self._last}")
        if image.number <= self._closed and published > self._closed_at:
            self._note(f"the result of {name} arrived after a transition that followed the image")
        self._last = max(self._last, image.number)

    def account(self, stats: FrameStats, *, waiting: int) -> None:
        """Check the node's counts.

        Args:
            stats: the node's statistics.
            waiting: maximum number of images that may be waiting or in progress.
        """
        last, self._stats = self._stats, stats
        if last is None or last.counting_since != stats.counting_since:
            last = FrameStats()
        self._balance(stats, waiting)
        if stats.received > self.sent:
            self._note(f"{stats.received} images were received, but only {self.sent} were sent")
        for name in (*COUNTED, "lost"):
            if getattr(stats, name) < getattr(last, name):
                self._note(f"the count {name} fell to {getattr(stats, name)}")

    def check_rest(self) -> None:
        """Check the latest counts of an idle camera: every image must have ended."""
        assert self._stats is not None
        self._balance(self._stats, 0)

    def is_last(self, stamp: Time) -> bool:
        """Return whether the latest statistics are those of the image with this stamp."""
        return self._stats is not None and self._stats.header.stamp == stamp

    def _balance(self, stats: FrameStats, waiting: int) -> None:
        ended = stats.processed + stats.dropped + stats.stale + stats.failed
        if not 0 <= stats.received - ended <= waiting:
            self._note(f"{stats.received} images were received, but {ended} have ended")

    def _note(self, fault: str) -> None:
        self.faults.append(f"{self.camera}: {fault}.")
