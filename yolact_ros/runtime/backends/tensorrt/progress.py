"""Report the progress of a build as one fraction of TensorRT's nested phases, and stop it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

LOG = logging.getLogger(__name__)

# Receives the finished fraction of a build, from 0 to 1, and returns whether to continue.
Progress = Callable[[float], bool]

# Receives the same as a sentence.
Report = Callable[[str], bool]

LOG_SECONDS = 10.0


class LoggedProgress:
    """Logs the progress of a build and the time left."""

    def __init__(self, what: str, report: Report | None = None) -> None:
        """Start measuring the time.

        Args:
            what: names the engine, e.g. `engine 2 of 3 (non_keyframe)`.
            report: receives each state and returns whether to continue.
        """
        self._what = what
        self._report = report
        self._started: float | None = None
        self._logged = 0.0

    def __call__(self, fraction: float) -> bool:
        """Report, and log at most every `LOG_SECONDS`."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._logged = now
        passed = now - self._started
        left = f", about {passed * (1 / fraction - 1):.0f} s left" if fraction else ""
        state = f"building {self._what}: {100 * fraction:.0f} %{left}"
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            LOG.info(state)
        return self._report is None or self._report(state)


def set_monitor(config: Any, trt: Any, progress: Progress | None) -> Any:
    """Make a build report its progress.

    Args:
        config: an `IBuilderConfig`.
        trt: the library's module.
        progress: called by any thread while the build runs; None: nothing is reported.

    Returns:
        The monitor, whose attribute `stopped` says whether `progress` ended the build; or None.
    """
    if progress is None:
        return None
    report = progress

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Adds up nested phases, each of which is one step of its parent."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[Any]] = {}  # name -> parent, steps, finished steps
            self.largest = 0.0
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = [parent_phase, max(1, num_steps), 0]

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name][2] = step + 1
                # Sibling phases each start at zero; progress that goes back would only confuse.
                self.largest = max(self.largest, self.fraction(phase_name))
                self.stopped = self.stopped or not report(self.largest)
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def fraction(self, phase_name: str) -> float:
            inner = 0.0
            phase: str | None = phase_name
            while phase in self.phases:
                parent, steps, done = self.phases[phase]
                inner = min(1.0, (done + inner) / steps)
                phase = parent
            return inner

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor
