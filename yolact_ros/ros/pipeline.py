"""Process one camera's images in the worker: decode, segment, publish."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from yolact_ros.ros.diagnostics.publisher import LatencyRecorder
from yolact_ros.ros.inputs.camera import CameraFrame, CameraInput
from yolact_ros.ros.inputs.depth import DepthInput
from yolact_ros.ros.inputs.mailbox import FrameCounts
from yolact_ros.ros.messages.images import bgr_from_message
from yolact_ros.ros.outputs.publishers import Outputs, milliseconds_since
from yolact_ros.ros.outputs.result import Result
from yolact_ros.ros.parameters.settings import Settings
from yolact_ros.runtime.frame import Frame
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.stamps import seconds_of
from yolact_ros.runtime.stream import Stream


@dataclass(eq=False)
class Work:
    """Holds one image on its way through the worker.

    Attributes:
        pipeline: pipeline of its camera.
        message: the image message.
        image: (H, W, 3) uint8 BGR.
        settings: the settings that apply to it.
        stream: stream of its camera; the next steps are `submit` and `fetch` of `frame`.
        started, decoded: `time.perf_counter` at the start and after decoding.
        submitted: the same when it was submitted to the device.
    """

    pipeline: Pipeline
    message: CameraFrame
    image: np.ndarray
    settings: Settings
    stream: Stream
    frame: Frame
    started: float
    decoded: float
    submitted: float = 0.0


class Pipeline:
    """Processes the images of one camera in order; belongs to the worker's thread.

    Attributes:
        camera: source of the images.
        outputs: publishers of the results.
        meter: records the times of the images.
    """

    def __init__(self, camera: CameraInput, outputs: Outputs, depth: DepthInput) -> None:
        self.camera = camera
        self._depth = depth
        self.meter = LatencyRecorder()
        self.outputs = outputs
        self._stream: Stream | None = None
        self._settings: Settings | None = None  # settings of the current stream

    def prepare(self, frame: CameraFrame, segmenter: Segmenter, *, settings: Settings) -> Work:
        """Decode one image and preprocess it for the network.

        Raises:
            MessageError: the image cannot be read.
        """
        started = time.perf_counter()
        header = frame.message.header
        self._depth.expect(header.stamp, settings=settings.depth)
        image = bgr_from_message(frame.message, max_megapixels=settings.limits.max_megapixels)
        decoded = time.perf_counter()
        stream = self._stream_of(segmenter, settings)
        prepared = stream.prepare(image, seconds_of(header.stamp), source=header.stamp)
        return Work(self, frame, image, settings, stream, prepared, started, decoded)

    def publish(self, work: Work) -> tuple[Result, dict[str, float]]:
        """Build the masks of an image after inference, and publish its detections.

        Returns:
            The published image and its times in milliseconds (fields of FrameStats).

        Raises:
            YolactError: the model fails on the image.
        """
        header, settings, frame = work.message.message.header, work.settings, work.frame
        detections = work.stream.track(work.stream.finish(frame), frame.stamp)
        result = Result(
            header,
            work.image,
            detections,
            detections.keyframe_source,
            class_names=detections.class_names,
            score_threshold=settings.frames.score_threshold,
            mask_encoding=settings.frames.mask_encoding,
            camera_info=self._depth.info,
            find_depth=lambda: self._depth.view(
                header.stamp, detections.image_size, settings=settings.depth
            ),
        )
        self.outputs.publish_labels(
            detections.class_names, threshold=settings.frames.score_threshold
        )
        times = self.outputs.publish(result)
        times["transport_ms"] = milliseconds_since(header.stamp, work.message.stamp)
        times["wait_ms"] = (work.started - work.message.arrived + frame.waited_s) * 1e3
        times["decode_ms"] = (work.decoded - work.started) * 1e3
        for stage in ("preprocess", "inference", "postprocess"):
            times[f"{stage}_ms"] = detections.timings[stage]
        return result, times

    def publish_stats(
        self, result: Result, times: dict[str, float], *, counts: FrameCounts
    ) -> None:
        """Publish the cost of an image after it has been counted."""
        age_ms = milliseconds_since(result.keyframe_stamp, result.header.stamp)
        known = {name: time for name, time in times.items() if not math.isnan(time)}
        self.meter.note(known, feature_age_s=age_ms * 1e-3)
        self.outputs.publish_stats(result, times, counts=counts, lost=self.camera.watch.lost)

    def request_keyframe(self) -> None:
        """Make the next image a keyframe; callable from any thread."""
        if self._stream is not None:
            self._stream.request_keyframe()

    def reset(self) -> None:
        """Forget earlier images: the next one is the first."""
        if self._stream is not None:
            self._stream.reset()

    def abandon_take(self) -> list[str]:
        """Unsubscribe topics whose take was aborted; return the topics."""
        return self.camera.abandon_take() + self._depth.abandon_take()

    def close(self) -> None:
        """Destroy the publishers of the camera's results."""
        self._depth.close()
        self.outputs.close()

    def _stream_of(self, segmenter: Segmenter, settings: Settings) -> Stream:
        if self._stream is None:
            self._stream = segmenter.stream(
                settings.keyframes, tracker=settings.tracker, postprocess=settings.frames
            )
        elif self._settings is not settings:
            self._stream.configure(settings.keyframes, settings.tracker, settings.frames)
        self._settings = settings
        return self._stream
