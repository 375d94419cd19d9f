"""Hold one image on its way through a stream: its input, its plan, and its detections."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from yolact_ros.config import PostprocessConfig
from yolact_ros.runtime.backends import Array, Run
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.enlarge import enlarge_masks
from yolact_ros.runtime.network import Inference
from yolact_ros.runtime.preprocess import Placement


@dataclass(frozen=True, eq=False)
class Step:
    """Plans the computation of one image.

    Attributes:
        graph: the graph to run; None to propagate the detections of the last inference.
        reused: features of the keyframe that the graph takes as inputs.
        flow: other inputs of the graph besides the image.
        reason: why the image is a keyframe (`runtime.video.keyframes`); None if it is not.
        keyframe_stamp: stamp of the keyframe whose features are used, or of this one.
    """

    graph: str | None
    reused: tuple[str, ...] = ()
    flow: Mapping[str, np.ndarray] = field(default_factory=dict)
    reason: str | None = None
    keyframe_stamp: float | None = None


@dataclass(eq=False)
class Frame:
    """Holds one image on its way through a stream.

    Attributes:
        tensor: (1, H, W, 3) uint8 BGR, the network's input.
        placement: position of the image in the network's input.
        grey: input of optical flow; None if not needed.
        stamp, source: see `Stream.segment`; `keyframe_source` is the source of its keyframe.
        requested: whether a keyframe was requested.
        config: thresholds and limits.
        started, prepared: `time.perf_counter` at the start and when its input was ready.
        waited_s: seconds during which it was ready, but neither device nor CPU worked on it.
        outputs: outputs of its graph, once fetched.
    """

    tensor: np.ndarray
    placement: Placement
    grey: np.ndarray | None
    stamp: float | None
    source: Any
    requested: bool
    config: PostprocessConfig
    started: float
    epoch: int = -1
    step: Step = Step(None)
    prepared: float = 0.0
    waited_s: float = 0.0
    run: Run | None = None
    outputs: Mapping[str, Array] = field(default_factory=dict)
    keyframe_source: Any = None


def finish_detections(
    inference: Inference,
    placement: Placement,
    config: PostprocessConfig,
    *,
    classes: Sequence[str],
    started: float,
    prepared: float,
    waited_s: float = 0.0,
    **frame: Any,
) -> Detections:
    """Convert an inference to the resolution of its source image.

    Args:
        inference: the network's detections.
        placement: position of the image in the network's input.
        config: mask threshold and form of the boxes.
        classes: names of the model's classes.
        started: `time.perf_counter` at the start of the work on the image.
        prepared: `time.perf_counter` when its input was ready.
        waited_s: seconds after that during which nothing was done for it.
        frame: fields of `Detections` that describe the image within its stream.
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
            "postprocess": (finished - prepared - waited_s - inference.seconds) * 1e3,
        },
        **frame,
    )
