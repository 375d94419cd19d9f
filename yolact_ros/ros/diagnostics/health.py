"""Compare the node's current readings with thresholds for diagnostics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from yolact_ros.ros.inputs.mailbox import COUNTED, FrameCounts
from yolact_ros.ros.inputs.qos import lost_messages_message
from yolact_ros.ros.parameters.settings import DiagnosticSettings
from yolact_ros.runtime.bundle import ModelDescription

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE

ACTIVE = "active"  # the state in which images are accepted

# Fields of FrameStats in processing order.
STAGES = ("transport", "wait", "decode", "preprocess", "inference", "postprocess", "publish")

SKEW_S = 0.1  # tolerance for stamps ahead of the node's clock
OTHER_CLOCK_S = 3600.0  # an apparent latency beyond this means that the clocks differ

# Added to the names of experimental backends.
EXPERIMENTAL = {"TensorRt": " (experimental: tested on one GPU only)"}

Finding = tuple[bytes, str]  # level and message


@dataclass(frozen=True)
class Percentiles:
    """Holds the median, 95th percentile and maximum of a set of values."""

    p50: float
    p95: float
    longest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles | None:
        """Compute the percentiles of values; None if there are none."""
        if not values:
            return None
        p50, p95 = np.percentile(values, [50, 95])
        return cls(float(p50), float(p95), max(values))


@dataclass(frozen=True)
class CameraStats:
    """Holds a snapshot of one camera.

    Attributes:
        topic: full name.
        state: of the node; images are accepted only in the state `ACTIVE`.
        publishers: number of publishers of the topic.
        silence_s: seconds since the last image, or since the node became active.
        window_s: seconds covered by `recent`, `recent_lost`, `times` and `feature_age_s`.
        counting_s: seconds covered by `counts` and `lost`, since the transition configure.
        counts: of all images.
        lost: number of images that the middleware reported lost.
        space: counts of the 3-D results; None if every image waits for them.
        recent: counts of the images in the window.
        recent_lost: images lost in the window.
        times: milliseconds of each of `STAGES`, and `latency` from stamp to publication.
        feature_age_s: seconds from the keyframe's stamp to the image's.
        clash: describes publishers with incompatible QoS; empty if there are none.
        error: why an image last failed; empty if none did.
        clock_fault: what is wrong with the node's clock; empty if nothing is.
    """

    topic: str
    state: str = ACTIVE
    publishers: int = 0
    silence_s: float = 0.0
    window_s: float = 0.0
    counting_s: float = 0.0
    counts: FrameCounts = FrameCounts()
    lost: int = 0
    space: FrameCounts | None = None
    recent: FrameCounts = FrameCounts()
    recent_lost: int = 0
    times: Mapping[str, Percentiles] = field(default_factory=dict)
    feature_age_s: Percentiles | None = None
    clash: str = ""
    error: str = ""
    clock_fault: str = ""

    def rate(self, number: int) -> float:
        """Return the images per second for a number of images in the window."""
        return number / self.window_s if self.window_s > 0 else 0.0


def camera_status(node: str, reading: CameraStats, limits: DiagnosticSettings) -> DiagnosticStatus:
    """Return the diagnostic status of one camera."""
    recent = reading.recent
    values = {
        "topic": reading.topic,
        "publishers": str(reading.publishers),
        "state": reading.state,
        "input rate (Hz)": f"{reading.rate(recent.received):.1f}",
        "output rate (Hz)": f"{reading.rate(recent.processed):.1f}",
        "target rate (Hz)": f"{limits.target_rate:g}" if limits.target_rate else "none",
    }
    for name in ("latency", *STAGES):
        if name in reading.times:
            values[f"{name} p50/p95/max (ms)"] = _three(reading.times[name])
    if reading.feature_age_s is not None:
        values["feature age p50/p95/max (s)"] = _three(reading.feature_age_s)
    for name in COUNTED:
        values[name] = str(getattr(reading.counts, name))
    values["lost"] = str(reading.lost)
    if reading.space is not None and reading.space.received:
        values["3-D results"] = (
            f"{reading.space.processed} published, {reading.space.failed} without depth, "
            f"{reading.space.dropped} replaced by newer ones"
        )
    values["counting since configure (s)"] = f"{reading.counting_s:.0f}"
    if reading.error:
        values["last error"] = reading.error
    level, message = _worst(_camera_findings(reading, limits))
    return _status(f"{node}: {reading.topic}", level, message or _summary(reading), values)


def model_status(
    node: str,
    state: str,
    model: ModelDescription | None,
    *,
    backend: str = "",
    memory_mb: float = 0.0,
    fault: str = "",
) -> DiagnosticStatus:
    """Return the diagnostic status of the model and its process.

    Args:
        node: name of the node.
        state: state of the node, e.g. `active`.
        model: the open model; None if there is none.
        backend: the library that runs the model.
        memory_mb: resident memory of the process in MB; 0 if unknown.
        fault: why the model was given up or could not be opened; empty if there is no fault.
    """
    backend += EXPERIMENTAL.get(backend, "")
    summary = f"{state}, {model.model.name} on {backend}" if model else state
    values = {
        "state": state,
        "model": model.model.name if model else "none",
        "SHA-256": model.identity if model else "",
        "backend": backend if model else "",
        "target": model.target if model else "",
        "precision": model.precision if model else "",
        "memory (MB)": f"{memory_mb:.0f}",
    }
    return _status(f"{node}: model", ERROR if fault else OK, fault or summary, values)


def _camera_findings(reading: CameraStats, limits: DiagnosticSettings) -> Iterable[Finding]:
    """Yield every problem of a camera."""
    if reading.state != ACTIVE:
        return
    if reading.clock_fault:
        yield ERROR, reading.clock_fault
    recent, seconds = reading.recent, f"the last {reading.window_s:.0f} s"
    if limits.image_timeout and reading.silence_s > limits.image_timeout:
        message = (
            f"No image for {reading.silence_s:.0f} s on {reading.topic}; "
            f"publishers: {reading.publishers}"
        )
        yield STALE, f"{message}. {reading.clash}" if reading.clash else message
        return
    if reading.clash:
        yield WARN, reading.clash
    if recent.failed:
        level = WARN if recent.processed else ERROR
        yield level, f"{recent.failed} images failed in {seconds}; the last error: {reading.error}"
    if recent.stale:
        level = WARN if recent.processed else ERROR
        yield level, f"{recent.stale} images in {seconds} were older than max_frame_age"
    ended = recent.processed + recent.failed + recent.stale
    if recent.received and not ended and 0 < limits.image_timeout < reading.window_s:
        stuck = "the model is stuck or far too slow"
        yield ERROR, f"No result in {seconds}, although {recent.received} images arrived: {stuck}"
    if reading.recent_lost:
        advice = lost_messages_message(reading.topic, reading.lost)
        yield WARN, f"{reading.recent_lost} images were lost in {seconds}. {advice}"
    latency = reading.times.get("latency")
    if latency is not None:
        yield from _latency_findings(latency, limits)
    output = reading.rate(recent.processed)
    if output < limits.target_rate:
        wanted = f"target_rate ({limits.target_rate:g} Hz)"
        arriving = f"images arrive at {reading.rate(recent.received):.1f} Hz"
        yield WARN, f"Results are published at {output:.1f} Hz, below {wanted}; {arriving}"


def _latency_findings(latency: Percentiles, limits: DiagnosticSettings) -> Iterable[Finding]:
    if latency.p50 < -SKEW_S * 1e3 or latency.p50 > OTHER_CLOCK_S * 1e3:
        seconds = abs(latency.p50) * 1e-3
        order = "later than" if latency.p50 < 0 else "before"
        yield (
            WARN,
            f"Images are stamped {seconds:,.1f} s {order} the node's time, so latencies are "
            "meaningless: synchronize the clocks of camera and node, and set use_sim_time for "
            "both or for neither",
        )
        return
    limit_ms = limits.latency_warning * 1e3
    if 0 < limit_ms < latency.p95:
        yield WARN, f"The p95 latency is {latency.p95:.0f} ms, more than {limit_ms:g} ms"


def _worst(findings: Iterable[Finding]) -> Finding:
    """Return the highest level and all messages, most severe first."""
    ordered = sorted(findings, key=lambda finding: finding[0], reverse=True)
    if not ordered:
        return OK, ""
    return ordered[0][0], "; ".join(message for _, message in ordered)


def _summary(reading: CameraStats) -> str:
    if reading.state != ACTIVE:
        return reading.state
    if not reading.counts.received:
        return f"waiting for images on {reading.topic}; publishers: {reading.publishers}"
    rate = f"{reading.rate(reading.recent.processed):.1f} Hz"
    latency = reading.times.get("latency")
    return rate if latency is None else f"{rate}, {latency.p50:.0f} ms from stamp to result"


def _three(spread: Percentiles) -> str:
    return f"{spread.p50:.3g} / {spread.p95:.3g} / {spread.longest:.3g}"


def _status(name: str, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=name.partition(":")[0],
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
