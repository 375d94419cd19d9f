"""Run the thread that opens the model, owns it, and processes the images of all cameras."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

from rclpy.node import Node

from yolact_ros.errors import ConfigError, MessageError, YolactError
from yolact_ros.ros.inputs.camera import CameraFrame
from yolact_ros.ros.inputs.mailbox import Inbox, Mailbox
from yolact_ros.ros.outputs.publishers import milliseconds_since
from yolact_ros.ros.parameters.settings import Settings
from yolact_ros.ros.pipeline import Pipeline, Work
from yolact_ros.ros.services import SegmentRequest
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.shipped import find_model
from yolact_ros.runtime.stream import submit_together

THROTTLE_S = 5.0  # between two log messages about bad images
PROGRESS_S = 2.0  # between two log messages while the model is being opened
PACKAGE = "yolact_ros"


class Worker:
    """Runs one thread from `open` to `end`; a backend's context belongs to its creating thread.

    While the device computes, the thread prepares the next image and publishes the previous one.
    The next image is taken as late as its preparation allows, so that it is the newest one.

    Attributes:
        backend_name: name of the backend, once `open` has returned.
    """

    def __init__(
        self,
        node: Node,
        inbox: Inbox[Any],
        *,
        settings: Callable[[], Settings],
        on_broken: Callable[[str], None],
    ) -> None:
        """Create a worker; `open` starts it.

        Args:
            node: provides the logger and the clock.
            inbox: source of the images; `end` ends it.
            settings: returns the current settings.
            on_broken: called by the worker's thread, with the reason, when the model has failed on
                too many consecutive images.
        """
        self.backend_name = ""
        self._logger = node.get_logger()
        self._clock = node.get_clock()
        self._inbox = inbox
        self._settings = settings
        self._on_broken = on_broken
        self._pipelines: dict[Mailbox[CameraFrame], Pipeline] = {}
        self._opened: Future[ModelDescription] = Future()
        self._ended = threading.Event()
        self._progress = "opening the model"
        self._failures = 0  # consecutive images
        self._preparation_s = 0.0  # time for the last image
        self._runs_s: dict[str, tuple[float, float]] = {}  # the last two run times of each graph
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def open(
        self, *, interrupted: Callable[[], bool], report: Callable[[str], None]
    ) -> ModelDescription:
        """Open the model and run it once; log the progress every few seconds.

        Args:
            interrupted: returns whether the process should end; then this raises early.
            report: called by this thread with the current step.

        Returns:
            The description of the model.

        Raises:
            YolactError: the model cannot be opened, or opening was interrupted.
        """
        started = time.monotonic()
        due = started + PROGRESS_S
        self._thread.start()
        while not wait([self._opened], 0.05).done:
            report(self._progress)
            if interrupted():
                raise YolactError("The node was asked to end before the model was open.")
            if time.monotonic() >= due:
                due += PROGRESS_S
                self._logger.info(
                    f"Opening the model has taken {time.monotonic() - started:.0f} s so far."
                )
        return self._opened.result()

    def serve(self, pipelines: Sequence[Pipeline]) -> None:
        """Set the cameras to serve; call this before any of them is subscribed."""
        self._pipelines = {pipeline.camera.mailbox: pipeline for pipeline in pipelines}

    def end(self, timeout: float) -> bool:
        """End the thread, which frees the model; return False after `timeout` seconds."""
        self._ended.set()
        self._inbox.end()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with logging_to(self._logger):
                segmenter = self._open_segmenter()
        except Exception as error:  # noqa: BLE001 - raised again by `open`
            self._opened.set_exception(error)
            return
        self.backend_name = segmenter.backend_name
        self._opened.set_result(segmenter.description)
        with segmenter:
            self._serve(segmenter)

    def _open_segmenter(self) -> Segmenter:
        settings = self._settings()
        started = time.perf_counter()
        path = find_model(settings.model.model)
        segmenter = Segmenter.open(
            path, postprocess=settings.frames, backend=settings.model, report=self._on_progress
        )
        try:
            segmenter.warm_up(settings.keyframes)
        except BaseException:
            segmenter.close()
            raise
        model = segmenter.description.model
        self._logger.info(
            f"Model {model.name} ({len(model.classes)} classes) from {path} is ready after "
            f"{time.perf_counter() - started:.1f} s."
        )
        return segmenter

    def _on_progress(self, state: str) -> bool:
        """Record the progress of an engine build; return False to stop it."""
        self._progress = state
        return not self._ended.is_set()

    def _serve(self, segmenter: Segmenter) -> None:
        """Process one item after another until the end; count each image exactly once."""
        current: list[Work] = []  # on the device: images of different cameras
        while True:
            taken = self._take(current, most=segmenter.description.batch)
            if not taken and not current:
                return
            prepared = [
                self._prepare(self._pipelines[mailbox], frame, segmenter)
                for mailbox, frame in taken
                if not isinstance(frame, SegmentRequest)
            ]
            current = [work for work in current if self._fetch(work)]
            following = self._submit([work for work in prepared if work is not None])
            for work in current:
                self._publish(work)
            for mailbox, request in taken:
                if isinstance(request, SegmentRequest):
                    request.work(segmenter, self._settings())
                    mailbox.finish()
            current = following
            if current and not current[0].stream.overlaps:
                for work in current:
                    if self._fetch(work):
                        self._publish(work)
                current = []

    def _take(self, current: Sequence[Work], *, most: int) -> list[tuple[Mailbox[Any], Any]]:
        """Take the next items, from different mailboxes; none at the end.

        Also return none if nothing arrives by the time the device should have finished `current`.
        """
        timeout: float | None = None
        if current:
            graphs = {work.frame.step.graph or "" for work in current}  # one run each
            runs_s = sum(min(self._runs_s.get(graph, (0.0,))) for graph in graphs)
            done = current[0].submitted + runs_s
            time.sleep(max(0.0, done - self._preparation_s - time.perf_counter()))
            timeout = max(0.0, done - time.perf_counter())
        taken: list[tuple[Mailbox[Any], Any]] = []
        while len(taken) < most:
            mailboxes = [mailbox for mailbox, _ in taken]
            pair = self._inbox.take(0.0 if taken else timeout, besides=mailboxes)
            if pair is None:
                break
            taken.append(pair)
        return taken

    def _prepare(
        self, pipeline: Pipeline, frame: CameraFrame, segmenter: Segmenter
    ) -> Work | None:
        settings = self._settings()
        with self._counting(pipeline):
            if self._is_stale(frame, settings.limits.max_frame_age):
                pipeline.camera.mailbox.finish("stale")
                return None
            work = pipeline.prepare(frame, segmenter, settings=settings)
            self._preparation_s = work.frame.prepared - work.started
            return work
        return None

    def _submit(self, works: list[Work]) -> list[Work]:
        """Start inference on images; return those that did not fail."""
        for work in works:
            work.submitted = time.perf_counter()
        try:
            submit_together([(work.stream, work.frame) for work in works])
        except Exception as error:  # noqa: BLE001 - images must not end the others
            for work in works:
                self._fail(error, work.pipeline)
            return []
        return works

    def _fetch(self, work: Work) -> bool:
        with self._counting(work.pipeline):
            frame = work.frame
            work.stream.fetch(frame)
            if frame.run is not None and frame.step.graph is not None:
                _, before = self._runs_s.get(frame.step.graph, (0.0, frame.run.seconds))
                self._runs_s[frame.step.graph] = before, frame.run.seconds
            return True
        return False

    def _publish(self, work: Work) -> None:
        pipeline = work.pipeline
        with self._counting(pipeline):
            result, times = pipeline.publish(work)
            self._failures = 0
            counts = pipeline.camera.mailbox.finish()
            try:
                pipeline.publish_stats(result, times, counts=counts)
            except Exception:  # noqa: BLE001 - the image itself was published
                self._logger.error(
                    f"Statistics could not be published:\n{traceback.format_exc()}",
                    throttle_duration_sec=THROTTLE_S,
                )

    @contextlib.contextmanager
    def _counting(self, pipeline: Pipeline) -> Iterator[None]:
        """Count an image as failed if a step of its processing fails, and continue."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - one image must not end the others
            self._fail(error, pipeline)

    def _fail(self, error: Exception, pipeline: Pipeline) -> None:
        pipeline.meter.error = str(error)
        if isinstance(error, (MessageError, ConfigError)):
            self._logger.error(str(error), throttle_duration_sec=THROTTLE_S)
        else:
            pipeline.reset()
            self._failures += 1
            reason = str(error) if isinstance(error, YolactError) else traceback.format_exc()
            if 0 < self._settings().limits.max_failures <= self._failures:
                self._on_broken(
                    f"The model failed on {self._failures} consecutive images. The last error: "
                    f"{reason}"
                )
            else:
                self._logger.error(f"An image failed: {reason}", throttle_duration_sec=THROTTLE_S)
        pipeline.camera.mailbox.finish("failed")

    def _is_stale(self, frame: CameraFrame, limit: float) -> bool:
        stamp = frame.message.header.stamp
        if not limit or not (stamp.sec or stamp.nanosec):
            return False
        age = milliseconds_since(stamp, self._clock.now().to_msg()) * 1e-3
        if not age > limit:  # also if it is NaN
            return False
        self._logger.warning(
            f"An image was {age:.3f} s old, more than max_frame_age ({limit:g} s), and counted as "
            "stale. If this happens to all images, compare the clocks of camera and node, and "
            "check use_sim_time.",
            throttle_duration_sec=THROTTLE_S,
        )
        return True


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
