"""Publish the 3-D results of one camera in a thread, the only one that waits for depth."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from rclpy.impl.rcutils_logger import RcutilsLogger

from yolact_ros.ros.inputs.mailbox import FrameCounts, Inbox
from yolact_ros.ros.outputs.result import Result

THROTTLE_S = 5.0  # between two log messages


class SpaceThread:
    """Publishes the newest submitted result; a newer one replaces a waiting one."""

    def __init__(self, publish: Callable[[Result], None], *, logger: RcutilsLogger) -> None:
        """Start the thread.

        Args:
            publish: publishes the 3-D topics of one image; may wait for its depth.
            logger: logs exceptions of `publish`.
        """
        self._publish = publish
        self._logger = logger
        self._inbox: Inbox[Result] = Inbox()
        self._mailbox = self._inbox.new_mailbox()
        self._thread = threading.Thread(target=self._run, name="3-D results", daemon=True)
        self._thread.start()

    def submit(self, result: Result) -> None:
        """Queue a result for publication."""
        self._mailbox.put(result)

    def counts(self) -> FrameCounts:
        """Return the counts of the submitted results; those without depth count as failed."""
        return self._mailbox.counts()

    def pause(self, timeout: float) -> bool:
        """Accept no results; return False if one is unfinished after `timeout` seconds."""
        return self._inbox.close(timeout)

    def resume(self) -> None:
        """Resume accepting results."""
        self._inbox.open()

    def end(self) -> None:
        """End the thread once the current result is finished."""
        self._inbox.end()
        self._thread.join()

    def _run(self) -> None:
        while (taken := self._inbox.take()) is not None:
            mailbox, result = taken
            try:
                self._publish(result)
            except Exception:  # noqa: BLE001 - the next image may succeed
                self._logger.error(
                    f"The 3-D results of an image failed:\n{traceback.format_exc()}",
                    throttle_duration_sec=THROTTLE_S,
                )
                mailbox.finish("failed")
            else:
                mailbox.finish("failed" if result.view is None else "processed")
