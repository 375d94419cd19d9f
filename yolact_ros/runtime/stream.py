"""Process the images of one camera or video: keyframes, feature reuse, propagation, track ids."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from yolact_ros.config import (
    MAX_AUTO_GAP_S,
    PROPAGATE_AUTO,
    KeyframeConfig,
    PostprocessConfig,
    TrackerConfig,
)
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.backends import Array
from yolact_ros.runtime.bundle import FEATURES, ModelDescription
from yolact_ros.runtime.detections import KEYFRAME, PARTIAL, Detections
from yolact_ros.runtime.frame import Frame, Step, finish_detections
from yolact_ros.runtime.network import Inference, Network, check_postprocess
from yolact_ros.runtime.preprocess import prepare_image
from yolact_ros.runtime.video.keyframes import KeyframePolicy
from yolact_ros.runtime.video.optical_flow import (
    OpticalFlow,
    flow_at_cells,
    flow_change,
    grey_difference,
    grey_image,
)
from yolact_ros.runtime.video.propagation import PropagatedDetections
from yolact_ros.runtime.video.tracking import Tracker


class Stream:
    """Owns what one camera's images pass on to later ones; see `Segmenter.stream`.

    Several streams may share a segmenter. With a bundle for single images, every image on which
    the network runs is a keyframe. Only `request_keyframe` may be called from other threads.

    `segment` does all steps for an image. If `overlaps` is true, the steps of two images may
    interleave: `prepare` the next image while the device works on the previous one, then `fetch`
    the previous one, `submit` the next one, and `finish` the previous one.
    """

    def __init__(
        self,
        network: Network,
        keyframes: KeyframeConfig,
        tracker: TrackerConfig,
        postprocess: PostprocessConfig,
    ) -> None:
        """Create a stream that has not seen any images.

        Raises:
            ConfigError: the model does not support these settings.
        """
        self._network = network
        self._search = OpticalFlow()
        self._policy = KeyframePolicy(keyframes)
        self._tracker = Tracker(tracker)
        self._requested = threading.Event()
        self._epoch = 0  # incremented whenever everything is forgotten
        self._features: Mapping[str, Array] = {}
        self._keyframe_grey: np.ndarray | None = None
        self._keyframe_source: Any = None
        self._propagated: PropagatedDetections | None = None
        self._since_inference = 0
        self._inference_stamp: float | None = None
        self.configure(keyframes, tracker, postprocess)

    def configure(
        self, keyframes: KeyframeConfig, tracker: TrackerConfig, postprocess: PostprocessConfig
    ) -> None:
        """Apply settings from the next image on.

        Raises:
            ConfigError: the model does not support them; the old settings stay.
        """
        description = self._network.description
        warp = choose_warp(keyframes, description)
        check_postprocess(postprocess, description)
        self._warp = warp
        self._keyframes = self._policy.config = keyframes
        self._tracker.config = tracker
        self._postprocess = postprocess
        self._propagated_frames = keyframes.propagated_frames
        if keyframes.propagated_frames == PROPAGATE_AUTO:
            self._propagated_frames = 0 if self._network.backend.on_gpu else 1

    def request_keyframe(self) -> None:
        """Make the next image a keyframe; callable from any thread."""
        self._requested.set()

    def reset(self) -> None:
        """Forget all earlier images; track ids are not reused."""
        self._forget()
        self._tracker.reset()

    def segment(
        self, image: np.ndarray, stamp: float | None = None, *, source: Any = None
    ) -> Detections:
        """Segment the next image and assign track ids.

        Args:
            image: (H, W, 3) uint8 BGR; any strides.
            stamp: capture time in seconds, on any clock that the whole stream uses.
            source: identifies the image for the caller, e.g. its header. Results carry the source
                of the keyframe whose features they reuse, as `keyframe_source`.

        Raises:
            ValueError: the image has the wrong shape or type.
            BackendError: the backend fails.
        """
        return self.track(self.detect(image, stamp, source=source), stamp)

    def track(self, detections: Detections, stamp: float | None = None) -> Detections:
        """Assign track ids to the next image's detections; return them unchanged without tracking.

        For detections that were computed earlier; `segment` already does this.
        """
        if not self._tracker.config.tracking:
            self._tracker.reset()
            return detections
        return replace(detections, track_ids=self._tracker.update(detections, stamp))

    def detect(
        self, image: np.ndarray, stamp: float | None = None, *, source: Any = None
    ) -> Detections:
        """Segment the next image without track ids; see `segment`."""
        frame = self.prepare(image, stamp, source=source)
        self.submit(frame)
        self.fetch(frame)
        return self.finish(frame)

    @property
    def overlaps(self) -> bool:
        """Return whether the next image may be prepared before this one is fetched.

        Propagation requires the detections of the previous image.
        """
        return self._network.overlaps and not self._propagated_frames

    def prepare(
        self, image: np.ndarray, stamp: float | None = None, *, source: Any = None
    ) -> Frame:
        """Preprocess an image and decide what to run; see `segment`."""
        started = time.perf_counter()
        tensor, placement = prepare_image(image, self._network.description.model)
        # A request that arrives during this image applies to the next one.
        requested = self._requested.is_set()
        if requested:  # never clear a request that arrives at this moment
            self._requested.clear()
        grey = grey_image(tensor) if self._remembers else None
        frame = Frame(
            tensor, placement, grey, stamp, source, requested, self._postprocess, started
        )
        with self._forgetting(frame):
            self._plan(frame)
        frame.prepared = time.perf_counter()
        return frame

    def submit(self, frame: Frame) -> None:
        """Start inference on a prepared image."""
        submit_together([(self, frame)])

    def _inputs(self, frame: Frame) -> dict[str, Array]:
        """Return the graph inputs of a frame whose predecessors have been fetched."""
        if frame.epoch != self._epoch:  # the features that it relied on are gone
            self._plan(frame)
        features = {name: self._features[name] for name in frame.step.reused}
        return {"image": frame.tensor, **features, **frame.step.flow}

    def fetch(self, frame: Frame) -> None:
        """Wait for inference."""
        if frame.run is not None:
            with self._forgetting(frame):
                frame.outputs = frame.run.fetch()
            if frame.step.reason is not None:
                self._features = {n: frame.outputs[n] for n in FEATURES if n in frame.outputs}
                self._keyframe_source = frame.source
        frame.keyframe_source = self._keyframe_source

    def finish(self, frame: Frame) -> Detections:
        """Select the detections and assemble their masks."""
        step = frame.step
        with self._forgetting(frame):
            if frame.run is None:
                inference = self._propagate(frame.grey)
            else:
                seconds = frame.run.seconds
                frame.waited_s = max(0.0, time.perf_counter() - frame.prepared - seconds)
                inference = self._network.interpret(frame.outputs, frame.config, seconds=seconds)
                self._remember(inference, frame)
        return finish_detections(
            inference,
            frame.placement,
            frame.config,
            classes=self._network.description.model.classes,
            started=frame.started,
            prepared=frame.prepared,
            waited_s=frame.waited_s,
            frame_type=PARTIAL if step.reason is None else KEYFRAME,
            keyframe_stamp=step.keyframe_stamp,
            keyframe_source=frame.keyframe_source,
            keyframe_reason=step.reason,
        )

    @contextlib.contextmanager
    def _forgetting(self, frame: Frame) -> Iterator[None]:
        """Forget everything if a step fails, because the policy relies on its features."""
        try:
            yield
        except BaseException:
            self._forget()
            if frame.requested:
                self._requested.set()
            raise

    @property
    def _remembers(self) -> bool:
        """Return whether anything of an image can be reused later."""
        return bool(self._network.description.warps) or self._propagated_frames > 0

    def _forget(self) -> None:
        self._epoch += 1
        self._policy.reset()
        self._features = {}
        self._keyframe_grey = None
        self._keyframe_source = None
        self._propagated = None

    def _plan(self, frame: Frame) -> None:
        """Decide what to run on an image; earlier ones are planned, but may be unfinished."""
        grey = frame.grey
        propagates = self._may_propagate(frame.stamp)
        flow: np.ndarray | None = None

        def change() -> float:
            nonlocal flow
            keyframe = self._keyframe_grey
            assert grey is not None and keyframe is not None  # the policy has seen a keyframe
            if self._warp != "dis":
                return grey_difference(grey, keyframe)
            flow = self._search.between(grey, keyframe)
            return flow_change(flow, grey, keyframe)

        reason = self._policy.decide(
            frame.stamp,
            frame.placement.image_size,
            change=change if grey is not None else None,
            requested=frame.requested,
            reusable=propagates or bool(self._network.description.warps),
        )
        if reason is not None:
            step = Step(self._network.whole_graph, reason=reason)
            self._keyframe_grey = grey
        elif propagates:
            step = Step(None)
        elif self._warp == "learned":
            step = Step("non_keyframe", FEATURES)
        else:
            model = self._network.description.model
            if flow is None:
                cells = np.zeros((1, 2, *model.feature_sizes[1]), np.float32)
            else:
                cells = flow_at_cells(flow, model)
            step = Step("non_keyframe_flow", ("x4", "x5"), {"flow": cells})
        frame.step = replace(step, keyframe_stamp=self._policy.keyframe_stamp)
        frame.epoch = self._epoch

    def _may_propagate(self, stamp: float | None) -> bool:
        """Return whether the last detections may be propagated to an image with this stamp."""
        if self._propagated is None or self._since_inference >= self._propagated_frames:
            return False
        if self._keyframes.propagated_frames != PROPAGATE_AUTO:
            return True
        if stamp is None or self._inference_stamp is None:
            return False  # unknown how long new objects would have to wait
        return 0 <= stamp - self._inference_stamp <= MAX_AUTO_GAP_S

    def _propagate(self, grey: np.ndarray | None) -> Inference:
        assert self._propagated is not None and grey is not None  # checked by `_plan`
        self._since_inference += 1
        selection, soft = self._propagated.propagate(grey)
        return Inference(selection, soft, 0.0)

    def _remember(self, inference: Inference, frame: Frame) -> None:
        """Store what can be propagated from an image on which the network ran."""
        self._since_inference = 0
        self._inference_stamp = frame.stamp
        self._propagated = None
        if self._propagated_frames and frame.grey is not None:
            self._propagated = PropagatedDetections(
                inference.selection, inference.soft, grey=frame.grey
            )


def submit_together(frames: Sequence[tuple[Stream, Frame]]) -> None:
    """Start inference on prepared images of several streams of a network, in one run per graph.

    Args:
        frames: one per stream, at most as many as the model processes at once.

    Raises:
        BackendError: the backend fails; all of these streams start over.
    """
    with contextlib.ExitStack() as stack:
        for stream, frame in frames:
            stack.enter_context(stream._forgetting(frame))
        requests: dict[str, list[tuple[Frame, dict[str, Array]]]] = {}
        for stream, frame in frames:
            inputs = stream._inputs(frame)
            if frame.step.graph is not None:  # the others are propagated
                requests.setdefault(frame.step.graph, []).append((frame, inputs))
        for graph, pairs in requests.items():
            runs = frames[0][0]._network.submit(graph, [inputs for _, inputs in pairs])
            for (frame, _), run in zip(pairs, runs, strict=True):
                frame.run = run


def choose_warp(config: KeyframeConfig, description: ModelDescription) -> str:
    """Return the name of the warp to use; empty for a bundle for single images.

    Raises:
        ConfigError: the model does not support the warp of `config`.
    """
    warps = description.warps
    if config.warp == "auto":
        return warps[0] if warps else ""
    if config.warp not in warps:
        available = (
            f"it has: {', '.join(warps)}"
            if warps
            else "it was exported for single images (export a bundle for video with yolact export "
            "--keyframes)"
        )
        raise ConfigError(
            f"Model {description.model.name!r} has no warp {config.warp!r}; {available}."
        )
    return config.warp
