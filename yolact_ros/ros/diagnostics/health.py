"""Whether the node does its work: readings of one moment, judged by thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from yolact_ros.ros.inputs.mailbox import FrameCounts
from yolact_ros.ros.inputs.qos import lost_messages_message
from yolact_ros.ros.parameters.settings import DiagnosticSettings

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
ERROR, STALE = DiagnosticStatus.ERROR, DiagnosticStatus.STALE

ACTIVE = "active"  # the state in which images are taken

# Fields of FrameStats, in the order in which an image meets them.
STAGES = ("transport", "wait", "decode", "preprocess", "inference", "postprocess", "publish")

Finding = tuple[bytes, str]  # level and words


@dataclass(frozen=True)
class Percentiles:
    """Median, 95th percentile and largest of some values."""

    p50: float
    p95: float
    longest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles | None:
        """The spread of values; None of none."""
        if not values:
            return None
        p50, p95 = np.percentile(values, [50, 95])
        return cls(float(p50), float(p95), max(values))


@dataclass(frozen=True)
class CameraStats:
    """What is known of one camera at one moment.

    Attributes:
        topic: full name.
        state: of the node; images are taken in the state `ACTIVE` only.
        publishers: how many the topic has.
        silence_s: seconds since the last image, or since images are taken.
        window_s: seconds that `recent`, `recent_lost`, `times` and `feature_age_s` are of.
        counts: of all images.
        lost: of all images those that the middleware reported lost.
        recent: images of the window.
        recent_lost: likewise.
        times: milliseconds of each of `STAGES`, and `latency` from stamp to publication.
        feature_age_s: seconds from the keyframe's stamp to the image's.
        clash: words on publishers that the subscription cannot hear; empty if there are none.
        error: why an image failed the last time; empty if none did.
    """

    topic: str
    state: str = ACTIVE
    publishers: int = 0
    silence_s: float = 0.0
    window_s: float = 0.0
    counts: FrameCounts = FrameCounts()
    lost: int = 0
    recent: FrameCounts = FrameCounts()
    recent_lost: int = 0
    times: Mapping[str, Percentiles] = field(default_factory=dict)
    feature_age_s: Percentiles | None = None
    clash: str = ""
    error: str = ""

    def rate(self, number: int) -> float:
        """Images a second, of so many in the window."""
        return number / self.window_s if self.window_s > 0 else 0.0


@dataclass(frozen=True)
class ModelStats:
    """What is known of the model at one moment.

    Attributes:
        state: of the node, e.g. `active`.
        name: of the model; empty if none is open.
        identity: first digits of its SHA-256.
        backend: the library that runs it.
        target: what its graphs were written for.
        precision: of the graphs' arithmetic.
        memory_mb: memory that the process holds, in MB; 0 if unknown.
        fault: why the model was given up or could not be opened; empty if it was not.
    """

    state: str
    name: str = ""
    identity: str = ""
    backend: str = ""
    target: str = ""
    precision: str = ""
    memory_mb: float = 0.0
    fault: str = ""


def camera_status(node: str, reading: CameraStats, limits: DiagnosticSettings) -> DiagnosticStatus:
    """Judge one camera."""
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
    for name in ("received", "processed", "dropped", "stale", "failed"):
        values[name] = str(getattr(reading.counts, name))
    values["lost"] = str(reading.lost)
    if reading.error:
        values["last error"] = reading.error
    level, message = _worst(_camera_findings(reading, limits))
    return _status(f"{node}: {reading.topic}", level, message or _summary(reading), values)


def model_status(node: str, reading: ModelStats, limits: DiagnosticSettings) -> DiagnosticStatus:
    """Judge the model and the process that runs it."""
    findings: list[Finding] = []
    if reading.fault:
        findings.append((ERROR, reading.fault))
    if limits.memory_warning and reading.memory_mb > limits.memory_warning:
        words = f"{reading.memory_mb:.0f} MB of memory, more than {limits.memory_warning:g} MB"
        findings.append((WARN, words))
    level, message = _worst(findings)
    summary = f"{reading.state}, {reading.name} on {reading.backend}"
    values = {
        "state": reading.state,
        "model": reading.name or "none",
        "SHA-256": reading.identity,
        "backend": reading.backend,
        "target": reading.target,
        "precision": reading.precision,
        "memory (MB)": f"{reading.memory_mb:.0f}",
    }
    return _status(
        f"{node}: model", level, message or (summary if reading.name else reading.state), values
    )


def _camera_findings(reading: CameraStats, limits: DiagnosticSettings) -> Iterable[Finding]:
    """What is not as it should be."""
    if reading.state != ACTIVE:
        return
    recent, seconds = reading.recent, f"the last {reading.window_s:.0f} s"
    if limits.image_timeout and reading.silence_s > limits.image_timeout:
        words = (
            f"No image for {reading.silence_s:.0f} s on {reading.topic}; "
            f"publishers: {reading.publishers}"
        )
        yield STALE, f"{words}. {reading.clash}" if reading.clash else words
        return
    if reading.clash:
        yield WARN, reading.clash
    if recent.failed:
        level = WARN if recent.processed else ERROR
        yield level, f"{recent.failed} images failed in {seconds}; the last one: {reading.error}"
    if recent.stale:
        level = WARN if recent.processed else ERROR
        yield level, f"{recent.stale} images of {seconds} were older than max_frame_age"
    ended = recent.processed + recent.failed + recent.stale
    if recent.received and not ended and 0 < limits.image_timeout < reading.window_s:
        yield (
            ERROR,
            (
                f"No result in {seconds}, though {recent.received} images came: "
                "the model hangs, or is far too slow"
            ),
        )
    if reading.recent_lost:
        yield (
            WARN,
            f"{reading.recent_lost} images lost in {seconds}. "
            + lost_messages_message(reading.topic, reading.lost),
        )
    latency = reading.times.get("latency")
    if latency is not None:
        yield from _latency_findings(latency, limits)
    output = reading.rate(recent.processed)
    if limits.target_rate and output < limits.rate_tolerance * limits.target_rate:
        wanted = f"{limits.rate_tolerance:.0%} of the target of {limits.target_rate:g} Hz"
        arriving = f"images come at {reading.rate(recent.received):.1f} Hz"
        yield WARN, f"{output:.1f} Hz of results, less than {wanted}; {arriving}"


def _latency_findings(latency: Percentiles, limits: DiagnosticSettings) -> Iterable[Finding]:
    for level, limit in ((ERROR, limits.latency_error), (WARN, limits.latency_warning)):
        if limit and latency.p95 > limit * 1e3:
            yield (
                level,
                (f"p95 of the latency is {latency.p95:.0f} ms, more than {limit * 1e3:g} ms"),
            )
            return


def _worst(findings: Iterable[Finding]) -> Finding:
    """The highest level and all words, those of the highest level first."""
    ordered = sorted(findings, key=lambda finding: finding[0], reverse=True)
    if not ordered:
        return OK, ""
    return ordered[0][0], "; ".join(words for _, words in ordered)


def _summary(reading: CameraStats) -> str:
    if reading.state != ACTIVE:
        return reading.state
    if not reading.counts.received:
        return f"waiting for images on {reading.topic}; publishers: {reading.publishers}"
    words = f"{reading.rate(reading.recent.processed):.1f} Hz"
    latency = reading.times.get("latency")
    return words if latency is None else f"{words}, {latency.p50:.0f} ms from stamp to result"


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
