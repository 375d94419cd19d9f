"""Run programs of this package as child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ament_index_python.packages import get_package_prefix

from yolact_ros.ros.inputs.transport import image_profile, only_this_machine
from yolact_ros.ros.program import run_ros

END_S = 5.0  # grace period for a process that was asked to end


def run_with_node(name: str, work: Callable[[], int]) -> int:
    """Do the work of a program that starts nodes on this machine; see `run_ros`."""
    # With its default settings, Fast DDS loses most images of a best-effort camera.
    os.environ.setdefault(*image_profile())
    # Traffic stays on this machine, except with Fast DDS on Humble (see only_this_machine).
    os.environ.setdefault(*only_this_machine())
    return run_ros(name, work, arguments=[], interrupted=130)


class ChildProcess:
    """Runs a program of this package in its own process until the block ends."""

    def __init__(self, name: str, *arguments: str, output: IO[str] | None = None) -> None:
        """Start a program.

        Args:
            name: name of the program.
            arguments: ROS arguments.
            output: file for its output; by default it shares this process's output.
        """
        program = Path(get_package_prefix("yolact_ros"), "lib", "yolact_ros", name)
        self.name = name
        # In its own session, so that only this process receives Ctrl-C and ends the others.
        self._process = subprocess.Popen(
            [sys.executable, str(program), "--ros-args", *arguments],
            start_new_session=True,
            stdout=output,
            stderr=output,
        )

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Return the process ID."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Return the exit status; None while it runs."""
        return self._process.poll()

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal, kill the process after `END_S` seconds, and return its exit status."""
        if self.status is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end in time and was killed.", file=sys.stderr)
            self._process.kill()
            return self._process.wait()
