"""The parts without ROS log to the node: the progress of an engine's build, and warnings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

PACKAGE = "yolact_ros"


class _NodeHandler(logging.Handler):
    """Passes records on to a node's logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # One line for each severity: rclpy refuses another severity from the same line.
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        elif record.levelno >= logging.WARNING:
            self._logger.warning(record.getMessage())
        else:
            self._logger.info(record.getMessage())


@contextlib.contextmanager
def logging_to(logger: Any) -> Iterator[None]:
    """Log to a node while the context lasts.

    Args:
        logger: of rclpy.
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
