"""Forward log records (engine build progress, warnings) from ROS-free code to the node."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

PACKAGE = "yolact_ros"


class _NodeHandler(logging.Handler):
    """Forwards records to a node's logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # One line per severity: rclpy rejects a different severity from the same line.
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


@contextlib.contextmanager
def logging_to(logger: Any) -> Iterator[None]:
    """Log to a node within the block.

    Args:
        logger: an rclpy logger.
    """
    package = logging.getLogger(PACKAGE)
    handler, level = _NodeHandler(logger), package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)
