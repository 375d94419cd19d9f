"""The images of one camera or video: keyframes, reuse of features, propagation, track ids."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.detections import KEYFRAME, PARTIAL, Detections
from yolact_ros.runtime.masks import enlarge_masks
from yolact_ros.runtime.network import Inference, Network, check_postprocess
from yolact_ros.runtime.preprocess import Placement, prepare_image
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


@dataclass(frozen=True, eq=False)
class Step:
    """How one image is computed.

    Attributes:
        graph: the graph to run; None to propagate the detections of the last inference.
        inputs: what the graph takes besides the image.
        reason: why the image is a keyframe (`runtime.video.keyframes`); None if it is not.
    """

    graph: str | None
    inputs: Mapping[str, Array]
    reason: str | None


class Stream:
    """Owns everything that one camera's images leave for later ones; see `Segmenter.stream`.

    Several streams may share a segmenter. With a bundle for single images, every image that the
    network runs on is a keyframe. Used by one thread at a time, except `request_keyframe`.
    """

    def __init__(
        self,
        network: Network,
        keyframes: KeyframeConfig,
        tracker: TrackerConfig,
        postprocess: PostprocessConfig,
    ) -> None:
        """Begin with no memory.

        Raises:
            ConfigError: the model does not support these settings.
        """
        self._network = network
        self._search = OpticalFlow()
        self._policy = KeyframePolicy(keyframes)
        self._tracker = Tracker(tracker)
        self._requested = threading.Event()
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
        """Use these settings from the next image on.

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
        """Make the next image a keyframe; may be called by any thread."""
        self._requested.set()

    def reset(self) -> None:
        """Forget all earlier images; track ids are not reused."""
        self._forget()
        self._tracker.reset()

    def segment(
        self, image: np.ndarray, stamp: float | None = None, *, source: Any = None
    ) -> Detections:
        """Find the instances of the next image and give them track ids.

        Args:
            image: (H, W, 3) uint8 BGR; any strides.
            stamp: when it was taken, in seconds of any clock that the whole stream uses.
            source: what identifies the image for the caller, e.g. its header. Results carry that
                of the keyframe whose features they reuse, as `keyframe_source`.

        Raises:
            ValueError: the image has another shape or type.
            BackendError: the backend fails.
        """
        return self.track(self.detect(image, stamp, source=source), stamp)

    def track(self, detections: Detections, stamp: float | None = None) -> Detections:
        """Give the next image's detections track ids; unchanged where tracking is off.

        For detections that were computed earlier; `segment` does this itself.
        """
        if not self._tracker.config.tracking:
            self._tracker.reset()
            return detections
        return replace(detections, track_ids=self._tracker.update(detections, stamp))

    def detect(
        self, image: np.ndarray, stamp: float | None = None, *, source: Any = None
    ) -> Detections:
        """Find the instances of the next image, without track ids; see `segment`."""
        started = time.perf_counter()
        tensor, placement = prepare_image(image, self._network.description.model)
        # Set during this image, a request holds for the next one.
        requested = self._requested.is_set()
        if requested:  # never clear a request that arrives at this moment
            self._requested.clear()
        grey = grey_image(tensor) if self._remembers else None
        try:
            step = self._plan(grey, placement.image_size, stamp, requested=requested)
            prepared = time.perf_counter()
            if step.graph is None:
                inference = self._propagate(grey)
            else:
                inputs = {"image": tensor, **step.inputs}
                inference = self._network.infer(step.graph, inputs, self._postprocess)
                self._remember(inference, step, grey, stamp)
        except BaseException:
            self._forget()  # the policy counts on features that are not there
            if requested:
                self._requested.set()
            raise
        if step.reason is not None:
            self._keyframe_source = source
        return finish_detections(
            inference,
            placement,
            self._postprocess,
            classes=self._network.description.model.classes,
            started=started,
            prepared=prepared,
            frame_type=PARTIAL if step.reason is None else KEYFRAME,
            keyframe_stamp=stamp if step.reason is not None else self._policy.keyframe_stamp,
            keyframe_source=self._keyframe_source,
            keyframe_reason=step.reason,
        )

    @property
    def _remembers(self) -> bool:
        """Whether anything of an image can serve later ones."""
        return bool(self._network.description.warps) or self._propagated_frames > 0

    def _forget(self) -> None:
        self._policy.reset()
        self._features = {}
        self._keyframe_grey = None
        self._keyframe_source = None
        self._propagated = None

    def _plan(
        self,
        grey: np.ndarray | None,
        image_size: tuple[int, int],
        stamp: float | None,
        *,
        requested: bool,
    ) -> Step:
        propagates = self._may_propagate(stamp)
        flow: np.ndarray | None = None

        def change() -> float:
            nonlocal flow
            keyframe = self._keyframe_grey
            assert grey is not None and keyframe is not None  # the policy has seen a keyframe
            if self._warp != "dis":
                return grey_difference(grey, keyframe)
            flow = self._search.between(grey, keyframe)
            return flow_change(flow, grey, keyframe)

        decision = self._policy.decide(
            stamp,
            image_size,
            change=change if grey is not None else None,
            requested=requested,
            reusable=propagates or bool(self._network.description.warps),
        )
        if decision.is_keyframe:
            return Step(self._network.whole_graph, {}, decision.reason)
        if propagates:
            return Step(None, {}, None)
        if self._warp == "learned":
            return Step("non_keyframe", self._features, None)
        model = self._network.description.model
        if flow is None:
            cells = np.zeros((1, 2, *model.feature_sizes[1]), np.float32)
        else:
            cells = flow_at_cells(flow, model)
        inputs = {"x4": self._features["x4"], "x5": self._features["x5"], "flow": cells}
        return Step("non_keyframe_flow", inputs, None)

    def _may_propagate(self, stamp: float | None) -> bool:
        """Whether the last inference's detections may be propagated to an image taken then."""
        if self._propagated is None or self._since_inference >= self._propagated_frames:
            return False
        if self._keyframes.propagated_frames != PROPAGATE_AUTO:
            return True
        if stamp is None or self._inference_stamp is None:
            return False  # nobody knows how long new objects would wait
        return 0 <= stamp - self._inference_stamp <= MAX_AUTO_GAP_S

    def _propagate(self, grey: np.ndarray | None) -> Inference:
        assert self._propagated is not None and grey is not None  # `_plan` has looked
        self._since_inference += 1
        selection, soft = self._propagated.propagate(grey)
        return Inference(selection, soft, {}, 0.0)

    def _remember(
        self, inference: Inference, step: Step, grey: np.ndarray | None, stamp: float | None
    ) -> None:
        """Keep what later images may reuse of one that the network ran on."""
        if step.reason is not None:
            self._keyframe_grey = grey
            self._features = inference.features
        self._since_inference = 0
        self._inference_stamp = stamp
        self._propagated = None
        if self._propagated_frames and grey is not None:
            self._propagated = PropagatedDetections(inference.selection, inference.soft, grey=grey)


def choose_warp(config: KeyframeConfig, description: ModelDescription) -> str:
    """Name of the warp to use; empty for a bundle for single images.

    Raises:
        ConfigError: the model does not have the warp that `config` names.
    """
    warps = description.warps
    if config.warp == "auto":
        return warps[0] if warps else ""
    if config.warp not in warps:
        available = (
            f"it has: {', '.join(warps)}"
            if warps
            else "it was exported for single images (yolact export --keyframes makes a bundle "
            "for video)"
        )
        raise ConfigError(
            f"Model {description.model.name!r} has no warp {config.warp!r}; {available}."
        )
    return config.warp


def finish_detections(
    inference: Inference,
    placement: Placement,
    config: PostprocessConfig,
    *,
    classes: Sequence[str],
    started: float,
    prepared: float,
    **frame: Any,
) -> Detections:
    """Bring an inference to the resolution of its source image.

    Args:
        inference: what the network found.
        placement: where the image lies in the network's input.
        config: mask threshold and form of the boxes.
        classes: names of the model's classes.
        started: `time.perf_counter` when the work on the image began.
        prepared: the same when its input was ready.
        frame: fields of `Detections` that say what the image is in its stream.
    """
    selection = inference.selection
    regions, masks = enlarge_masks(inference.soft, placement, config.mask_threshold)
    boxes = placement.boxes_to_image(selection.boxes)
    finished = time.perf_counter()
    return Detections(
        boxes=np.trunc(boxes) if config.integer_boxes else boxes,
        scores=selection.scores,
        mask_scores=selection.mask_scores,
        class_ids=selection.class_ids,
        mask_rois=regions,
        masks=masks,
        image_size=placement.image_size,
        class_names=tuple(classes),
        timings={
            "preprocess": (prepared - started) * 1e3,
            "inference": inference.seconds * 1e3,
            "postprocess": (finished - prepared - inference.seconds) * 1e3,
        },
        **frame,
    )
