"""The images of one camera or video: what their last keyframe left, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from yolact_ros.config import MAX_AUTO_GAP_S, PROPAGATE_AUTO, KeyframeConfig, ModelConfig
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.backends import Array
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.masks import SoftMasks
from yolact_ros.runtime.postprocess import Selection
from yolact_ros.runtime.video.keyframes import KeyframePolicy
from yolact_ros.runtime.video.optical_flow import (
    OpticalFlow,
    flow_at_cells,
    flow_change,
    grey_difference,
    grey_image,
)
from yolact_ros.runtime.video.propagation import PropagatedDetections

# What a graph `keyframe` leaves; `lateral` only if the network has a learned flow.
FEATURES = ("x4", "x5", "lateral")


@dataclass(frozen=True, eq=False)
class Plan:
    """How one image is to be computed.

    Attributes:
        graph: which graph to run; None if earlier detections are to be moved (`Stream.move`).
        inputs: what it takes besides the image.
        reason: why the image is a keyframe (`runtime.keyframe`); None if it is not.
        keyframe_stamp: seconds, of the image that its features are from; None if unknown.
    """

    graph: str | None
    inputs: Mapping[str, Array]
    reason: str | None
    keyframe_stamp: float | None


class Stream:
    """State of one stream of images; made by `Segmenter.new_stream`.

    Several streams may share a segmenter. With a model for single images, every image that the
    network runs on is a keyframe.
    """

    def __init__(
        self, description: ModelDescription, config: KeyframeConfig, *, on_gpu: bool = False
    ) -> None:
        """Begin.

        Args:
            description: the model.
            config: see the property.
            on_gpu: whether the network runs on a GPU; then moving detections, which the CPU does,
                saves nothing (`KeyframeConfig.propagated_frames`).

        Raises:
            ConfigError: the model does not have the warp that `config` names.
        """
        self._on_gpu = on_gpu
        self._model: ModelConfig = description.model
        self._warps = description.warps
        self._search = OpticalFlow()
        self._policy = KeyframePolicy(config)
        self._requested = False
        self._features: dict[str, Array] = {}
        self._grey: np.ndarray | None = None  # of the keyframe
        self._current_grey: np.ndarray | None = None
        self._carried: PropagatedDetections | None = None
        self._moved = 0  # images since the network ran
        self._stamp: float | None = None  # of the image that was planned last
        self._carried_stamp: float | None = None  # of the one that the network ran on last
        self.config = config

    @property
    def config(self) -> KeyframeConfig:
        """When keyframes come, and how features move; may be replaced between two images.

        Raises:
            ConfigError: on assignment, if the model does not have that warp.
        """
        return self._config

    @config.setter
    def config(self, config: KeyframeConfig) -> None:
        warp = config.warp
        if warp == "auto":
            warp = self._warps[0] if self._warps else ""
        elif warp not in self._warps:
            available = (
                f"it has: {', '.join(self._warps)}"
                if self._warps
                else "it was exported for single images (yolact export --keyframes makes a "
                "bundle for video)"
            )
            raise ConfigError(f"Model {self._model.name!r} has no warp {warp!r}; {available}.")
        self._config = config
        self._warp = warp
        self._policy.config = config
        self._propagated_frames = config.propagated_frames
        if config.propagated_frames == PROPAGATE_AUTO:
            self._propagated_frames = 0 if self._on_gpu else 1

    def request_keyframe(self) -> None:
        """Make the next image a keyframe; may be called by any thread."""
        self._requested = True

    def reset(self) -> None:
        """Forget everything: the next image is the first one."""
        self._policy.reset()
        self._features = {}
        self._grey = None
        self._carried = None

    def plan(
        self, tensor: np.ndarray, *, image_size: tuple[int, int], stamp: float | None
    ) -> Plan:
        """Decide what to do with the next image.

        Args:
            tensor: (1, H, W, 3) uint8 BGR, the network's input.
            image_size: (height, width) of the source image.
            stamp: seconds of any clock; None if unknown.
        """
        requested, self._requested = self._requested, False
        self._stamp = stamp
        moves = self._may_move(stamp)
        reusable = moves or bool(self._warps)
        if not self._warps and not self._propagated_frames:
            decision = self._policy.decide(
                stamp, image_size, requested=requested, reusable=reusable
            )
            return Plan("detect", {}, decision.reason, stamp)
        grey, keyframe = grey_image(tensor), self._grey
        self._current_grey = grey
        flow: np.ndarray | None = None

        def change() -> float:
            nonlocal flow
            assert keyframe is not None  # the policy has seen a keyframe
            if self._warp != "dis":
                return grey_difference(grey, keyframe)
            flow = self._search.between(grey, keyframe)
            return flow_change(flow, grey, keyframe)

        decision = self._policy.decide(
            stamp, image_size, change=change, requested=requested, reusable=reusable
        )
        if decision.is_keyframe:
            self._grey = grey
            graph = "keyframe" if self._warps else "detect"
            return Plan(graph, {}, decision.reason, stamp)
        if moves:
            return Plan(None, {}, None, self._policy.keyframe_stamp)
        if self._warp == "learned":
            return Plan("non_keyframe", self._features, None, self._policy.keyframe_stamp)
        if flow is None:
            cells = np.zeros((1, 2, *self._model.feature_sizes[1]), np.float32)
        else:
            cells = flow_at_cells(flow, self._model)
        inputs = {"x4": self._features["x4"], "x5": self._features["x5"], "flow": cells}
        return Plan("non_keyframe_flow", inputs, None, self._policy.keyframe_stamp)

    def carry(self, selection: Selection, soft: SoftMasks) -> None:
        """Hold on to what the network found in the image that was planned last."""
        self._moved = 0
        self._carried = None
        self._carried_stamp = self._stamp
        if self._propagated_frames and self._current_grey is not None:
            self._carried = PropagatedDetections(selection, soft, grey=self._current_grey)

    def move(self) -> tuple[Selection, SoftMasks]:
        """What `carry` was given, moved to the image that was planned last."""
        assert self._carried is not None  # `plan` has looked
        assert self._current_grey is not None
        self._moved += 1
        return self._carried.move(self._current_grey)

    def _may_move(self, stamp: float | None) -> bool:
        """Whether what the network found last may be moved to an image taken then."""
        if self._carried is None or self._moved >= self._propagated_frames:
            return False
        if self._config.propagated_frames != PROPAGATE_AUTO:
            return True
        if stamp is None or self._carried_stamp is None:
            return False  # nobody knows how long new objects would wait
        return 0 <= stamp - self._carried_stamp <= MAX_AUTO_GAP_S

    def keep(self, outputs: Mapping[str, Array]) -> None:
        """Hold on to the features among a keyframe's outputs."""
        self._features = {name: outputs[name] for name in FEATURES if name in outputs}
