"""Records of the package's loggers reach the node's log with their severity."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("rclpy")

from rclpy.logging import get_logger  # noqa: E402

from yolact_ros.ros.worker import logging_to  # noqa: E402


def test_progress_and_warnings_of_the_runtime_are_in_the_nodes_log(capfd, ros):
    log = logging.getLogger("yolact_ros.runtime.backends.tensorrt.build")
    before = logging.getLogger("yolact_ros").level
    log.info("too early")
    with logging_to(get_logger("robot")):
        log.info("building engine 2 of 3 (keyframe): 40 %%%s", ", about 60 s left")
        log.warning("runs on the CPU instead")
        log.error("out of memory")
        log.debug("a note")
    log.error("too late")
    lines = [line for line in capfd.readouterr().err.splitlines() if "[robot]" in line]
    assert ["INFO" in lines[0], "WARN" in lines[1], "ERROR" in lines[2]] == [True] * 3
    assert lines[0].endswith("building engine 2 of 3 (keyframe): 40 %, about 60 s left")
    assert lines[1].endswith("runs on the CPU instead") and len(lines) == 3
    assert logging.getLogger("yolact_ros").level == before
