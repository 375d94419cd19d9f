"""Programs of this package, started as child processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from ament_index_python.packages import get_package_prefix

END_S = 5.0  # for a process that is told to end


class Subprogram:
    """A program of this package in its own process; ended when the block ends."""

    def __init__(self, name: str, *arguments: str, output: IO[str] | None = None) -> None:
        """Start a program.

        Args:
            name: of the program.
            arguments: for ROS.
            output: file for what it writes; by default it writes where this process does.
        """
        program = Path(get_package_prefix("yolact_ros"), "lib", "yolact_ros", name)
        self.name = name
        # In its own session, so that Ctrl-C reaches this process alone, which ends the others.
        self._process = subprocess.Popen(
            [sys.executable, str(program), "--ros-args", *arguments],
            start_new_session=True,
            stdout=output,
            stderr=output,
        )

    def __enter__(self) -> Subprogram:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal, kill the process after `END_S` seconds; returns its exit status."""
        if self.status is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end and is killed.", file=sys.stderr)
            self._process.kill()
            return self._process.wait()
