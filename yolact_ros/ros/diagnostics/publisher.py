"""Publish `/diagnostics` once per second."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from yolact_ros.ros.diagnostics.health import (
    ACTIVE,
    STAGES,
    STALE,
    CameraStats,
    Percentiles,
    camera_status,
    model_status,
)
from yolact_ros.ros.inputs.camera import CameraInput
from yolact_ros.ros.inputs.graph import count_namesakes, name_image_topics
from yolact_ros.ros.inputs.mailbox import COUNTED, FrameCounts
from yolact_ros.ros.parameters.settings import DiagnosticSettings
from yolact_ros.runtime.bundle import ModelDescription

TOPIC = "/diagnostics"
PERIOD_S = 1.0
NAMESAKE_PERIOD_S = 30.0  # between two warnings
WINDOW_S = 10.0  # covered by rates and times
MOST_FRAMES = 2000  # maximum number of recorded times


class LatencyRecorder:
    """Records the times of one camera's images; written by the worker, read by the executor.

    Attributes:
        error: why an image last failed.
    """

    def __init__(self) -> None:
        self.error = ""
        self._lock = threading.Lock()
        self._frames: deque[tuple[float, Mapping[str, float], float]] = deque(maxlen=MOST_FRAMES)

    def note(self, times: Mapping[str, float], *, feature_age_s: float) -> None:
        """Record one image.

        Args:
            times: the known FrameStats fields that end in `_ms`.
            feature_age_s: seconds from the keyframe's stamp to the image's.
        """
        with self._lock:
            self._frames.append((time.monotonic(), times, feature_age_s))

    def read(self, since: float) -> tuple[dict[str, Percentiles], Percentiles | None]:
        """Summarize the times in milliseconds and the feature ages in seconds.

        Args:
            since: `time.monotonic()`; earlier images do not count.
        """
        with self._lock:
            frames = [frame for frame in self._frames if frame[0] >= since]
        spreads = {
            name: Percentiles.of([t[f"{name}_ms"] for _, t, _ in frames if f"{name}_ms" in t])
            for name in ("latency", *STAGES)
        }
        known = {name: spread for name, spread in spreads.items() if spread is not None}
        return known, Percentiles.of([age for *_, age in frames if not math.isnan(age)])


class CameraWindow:
    """Reads one camera at each tick and computes the difference over a sliding window.

    Attributes:
        camera: the camera.
        meter: its latency recorder.
    """

    def __init__(
        self,
        camera: CameraInput,
        meter: LatencyRecorder,
        space_counts: Callable[[], FrameCounts | None] = lambda: None,
    ) -> None:
        self.camera = camera
        self.meter = meter
        self._space_counts = space_counts
        self._past: deque[tuple[float, FrameCounts, int]] = deque()
        self._started = self._last_arrival = time.monotonic()

    def tick(self, now: float, *, state: str) -> CameraStats:
        """Read the counts and compare them with those at the start of the window.

        Args:
            now: `time.monotonic()`.
            state: state of the node.
        """
        counts, lost = self.camera.mailbox.counts(), self.camera.watch.lost
        if state != ACTIVE:
            self._past.clear()
        if not self._past or self._past[-1][1].received != counts.received:
            self._last_arrival = now
        self._past.append((now, counts, lost))
        while len(self._past) > 2 and self._past[1][0] <= now - WINDOW_S:
            self._past.popleft()
        then, before, lost_before = self._past[0]
        times, feature_age_s = self.meter.read(now - WINDOW_S)
        return CameraStats(
            topic=self.camera.topic,
            state=state,
            silence_s=now - self._last_arrival,
            window_s=now - then,
            counting_s=now - self._started,
            counts=counts,
            lost=lost,
            space=self._space_counts(),
            recent=difference(counts, before),
            recent_lost=lost - lost_before,
            times=times,
            feature_age_s=feature_age_s,
            error=self.meter.error,
        )


class Diagnostics:
    """Publishes the state of the node for the lifetime of the node.

    Attributes:
        state: state of the node, such as `active`.
        model: the open model; None if there is none.
        backend: the library that runs it.
        fault: why the model was given up or a transition failed; empty if nothing is wrong.
        gauges: one per camera.
    """

    def __init__(self, node: Node, limits: Callable[[], DiagnosticSettings]) -> None:
        self.state = "unconfigured"
        self.fault = ""
        self.model: ModelDescription | None = None
        self.backend = ""
        self.gauges: Sequence[CameraWindow] = ()
        self._node = node
        self._limits = limits
        self._silent: set[str] = set()  # topics whose silence has been logged
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._publisher = node.create_publisher(DiagnosticArray, TOPIC, 1)
        # Steady, because the node's clock may stand still with use_sim_time.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PERIOD_S, self._tick, clock=clock)

    def _tick(self) -> None:
        now, state, limits = time.monotonic(), self.state, self._limits()
        readings = [(gauge.camera, gauge.tick(now, state=state)) for gauge in self.gauges]
        clock_fault = self._clock_fault()
        if clock_fault and state == ACTIVE:
            self._node.get_logger().warning(clock_fault, once=True)
        namesakes = count_namesakes(self._node)
        if namesakes:
            self._node.get_logger().warning(
                f"{namesakes} other node{'s have' if namesakes > 1 else ' has'} the name "
                f"/{self._name}: topics, services and parameters clash. Give each node a unique "
                "name or namespace (-r __node:=NAME; launch argument name or namespace).",
                throttle_duration_sec=NAMESAKE_PERIOD_S,
            )
        model = model_status(
            self._name,
            state,
            self.model,
            backend=self.backend,
            memory_mb=memory_mb(),
            fault=self.fault,
        )
        message = DiagnosticArray(status=[model])
        message.header.stamp = self._node.get_clock().now().to_msg()
        for camera, reading in readings:
            publishers = self._node.count_publishers(camera.topic)
            clash = camera.watch.clash() or camera.explain_silence()
            if not (publishers or clash) and 0 < limits.image_timeout < reading.silence_s:
                clash = name_image_topics(self._node)
            full = replace(reading, publishers=publishers, clash=clash, clock_fault=clock_fault)
            status = camera_status(self._name, full, limits)
            self._log_silence(camera, status)
            message.status.append(status)
        self._publisher.publish(message)

    def _log_silence(self, camera: CameraInput, status: DiagnosticStatus) -> None:
        """Log once when a camera becomes silent, because not everybody reads /diagnostics."""
        if status.level != STALE:
            self._silent.discard(camera.topic)
        elif camera.topic not in self._silent:
            self._silent.add(camera.topic)
            self._node.get_logger().warning(status.message)

    def _clock_fault(self) -> str:
        """Explain why simulated time does not advance; empty if the node's clock is usable."""
        is_simulated = self._node.get_parameter("use_sim_time").value
        if not is_simulated or self._node.get_clock().now().nanoseconds:
            return ""
        return (
            "use_sim_time is true, but no time has arrived on /clock "
            f"({self._node.count_publishers('/clock')} publishers), so ages and latencies are "
            "unknown. Publish it (ros2 bag play --clock, or a simulator), or set use_sim_time to "
            "false."
        )


def difference(later: FrameCounts, earlier: FrameCounts) -> FrameCounts:
    """Return the counts between two moments."""
    return FrameCounts(**{name: getattr(later, name) - getattr(earlier, name) for name in COUNTED})


def memory_mb(process: int | str = "self") -> float:
    """Return the resident memory of a process in MB; 0 if it is unknown."""
    try:
        fields = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    kilobytes = (line.split()[1] for line in fields.splitlines() if line.startswith("VmRSS:"))
    return int(next(kilobytes, "0")) * 1024 / 1e6
