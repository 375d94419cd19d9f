"""The one pipeline from an image to instances; node, command line and evaluation call it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from yolact_ros.config import BackendConfig, KeyframeConfig, PostprocessConfig
from yolact_ros.errors import BackendError, ConfigError
from yolact_ros.runtime.backends import Array, Backend
from yolact_ros.runtime.backends.open import open_backend
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.detections import KEYFRAME, PARTIAL, Detections
from yolact_ros.runtime.lazy_heads import locate_priors, prototypes_inside
from yolact_ros.runtime.masks import SoftMasks, assemble_masks, box_cells, enlarge_masks
from yolact_ros.runtime.postprocess import Selection, select_detections, select_finished
from yolact_ros.runtime.preprocess import prepare_image
from yolact_ros.runtime.stream import FEATURES, Plan, Stream

# Graphs in which all of the network runs.
WHOLE = ("detect", "keyframe")

# Outputs that the host does not look into.
KEPT = (*FEATURES, "towers")

# What a graph with NMS inside has built in, with the values that it was exported with.
FIXED_IN_GRAPH = ("nms", "nms_iou_threshold", "top_k", "all_classes")


@dataclass(frozen=True, eq=False)
class Dissection:
    """A result with what it was made of, for looking into a network.

    Attributes:
        detections: the result.
        prototypes: (Hp, Wp, K) float32, zero or more; all zero for an image that the network did
            not run on.
        coefficients: (N, K) float32 in [-1, 1], of each instance.
        soft: the soft masks at the prototypes' resolution.
    """

    detections: Detections
    prototypes: np.ndarray
    coefficients: np.ndarray
    soft: SoftMasks


class Segmenter:
    """Segments one image after another; to be called by one thread at a time.

    Attributes:
        description: the model.
    """

    def __init__(
        self,
        backend: Backend,
        description: ModelDescription,
        postprocess: PostprocessConfig = PostprocessConfig(),  # noqa: B008 - frozen
    ) -> None:
        """Take over a backend, which `close` frees.

        Raises:
            BackendError: the model takes several images at once.
            ConfigError: see `postprocess`.
        """
        if description.batch > 1:
            raise BackendError(
                f"Model {description.model.name!r} was exported for {description.batch} images at "
                "once, and this takes one; export it with --batch 1."
            )
        self._backend = backend
        self.description = description
        self.postprocess = postprocess

    @property
    def backend_name(self) -> str:
        """What runs the model, e.g. `OnnxRuntime`."""
        return type(self._backend).__name__.removesuffix("Backend")

    @property
    def postprocess(self) -> PostprocessConfig:
        """Thresholds and limits; may be replaced between two images.

        Raises:
            ConfigError: on setting, if the model has NMS inside its graph and the settings ask
                for another one.
        """
        return self._postprocess

    @postprocess.setter
    def postprocess(self, config: PostprocessConfig) -> None:
        check_postprocess(config, self.description)
        self._postprocess = config

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        postprocess: PostprocessConfig = PostprocessConfig(),  # noqa: B008 - frozen
        **settings: Any,
    ) -> Segmenter:
        """Open a bundle or a checkpoint.

        Args:
            path: a bundle's folder or a checkpoint file.
            postprocess: thresholds and limits.
            settings: of the backend: fields of `BackendConfig`, e.g. threads=1.

        Raises:
            BundleError: the bundle is missing, incomplete or altered.
            WeightsError: the checkpoint cannot be used.
            BackendError: the backend's library is absent or does not run such a model.
            ConfigError: a setting lies outside its range.
        """
        opened, description = open_backend(path, BackendConfig(**settings))
        return cls(opened, description, postprocess)

    def new_stream(
        self,
        config: KeyframeConfig = KeyframeConfig(),  # noqa: B008 - frozen
    ) -> Stream:
        """Begin a stream of images, to be given to `segment` with each of them.

        Raises:
            ConfigError: the model does not have the warp that `config` names.
        """
        return Stream(self.description, config, on_gpu=self._backend.on_gpu)

    def segment(
        self, image: np.ndarray, *, stream: Stream | None = None, stamp: float | None = None
    ) -> Detections:
        """Find the instances of one image.

        Args:
            image: (H, W, 3) uint8 BGR; any strides.
            stream: what the image belongs to; images between keyframes then cost less. Without
                one, all of the network runs on the image.
            stamp: when it was taken, in seconds of any clock that the whole stream has.

        Raises:
            ValueError: the image has another shape or type.
            BackendError: the backend fails.
        """
        config = self.postprocess  # one configuration for the whole image
        return self._dissect(image, config, stream=stream, stamp=stamp, whole=False).detections

    def dissect(
        self, image: np.ndarray, *, stream: Stream | None = None, stamp: float | None = None
    ) -> Dissection:
        """Find the instances of one image, and keep prototypes and coefficients; see `segment`."""
        return self._dissect(image, self.postprocess, stream=stream, stamp=stamp, whole=True)

    def _dissect(
        self,
        image: np.ndarray,
        config: PostprocessConfig,
        *,
        stream: Stream | None = None,
        stamp: float | None = None,
        whole: bool = False,
    ) -> Dissection:
        """Do what `segment` says; `whole`: have prototypes everywhere, not only in boxes."""
        if config.max_detections > self.description.max_detections:
            config = replace(config, max_detections=self.description.max_detections)
        started = time.perf_counter()
        tensor, placement = prepare_image(image, self.description.model)
        if stream is None:
            plan = Plan("keyframe" if self.description.warps else "detect", {}, None, stamp)
        else:
            plan = stream.plan(tensor, image_size=placement.image_size, stamp=stamp)
        prepared = time.perf_counter()
        backend = _Stopwatch(self._backend)
        if plan.graph is None:
            assert stream is not None  # it made the plan
            selection, soft = stream.move()
            prototypes = np.zeros((*soft.size, self.description.model.num_prototypes), np.float32)
        else:
            outputs = self._run(backend, plan.graph, {"image": tensor, **plan.inputs}, stream)
            selection = self._select(backend, outputs, config)
            prototypes = self._prototypes(
                backend, outputs, selection, whole=whole or not config.crop_masks
            )
            soft = assemble_masks(
                prototypes, selection.coefficients, selection.boxes, crop=config.crop_masks
            )
            if not config.rescore_masks:
                selection = replace(selection, mask_scores=selection.scores)
            elif self._rescores and len(selection):
                selection = replace(selection, mask_scores=_rescore(backend, selection, soft))
            if stream is not None:
                stream.carry(selection, soft)
        regions, masks = enlarge_masks(soft, placement, config.mask_threshold)
        boxes = placement.boxes_to_image(selection.boxes)
        boxes = np.trunc(boxes) if config.integer_boxes else boxes
        finished = time.perf_counter()
        detections = Detections(
            boxes=boxes,
            scores=selection.scores,
            mask_scores=selection.mask_scores,
            class_ids=selection.class_ids,
            mask_rois=regions,
            masks=masks,
            image_size=placement.image_size,
            frame_type=KEYFRAME if plan.graph in WHOLE else PARTIAL,
            keyframe_stamp=plan.keyframe_stamp,
            keyframe_reason=plan.reason,
            timings={
                "preprocess": (prepared - started) * 1e3,
                "inference": backend.seconds * 1e3,
                "postprocess": (finished - prepared - backend.seconds) * 1e3,
            },
        )
        return Dissection(detections, prototypes, selection.coefficients, soft)

    def warm_up(self, keyframes: KeyframeConfig | None = None) -> None:
        """Run every graph once, so that the first image takes no longer than the others.

        Args:
            keyframes: of the streams that are to come; None if none are.

        Raises:
            ConfigError: the model does not have the warp that `keyframes` names.
        """
        model = self.description.model
        image = np.zeros((*model.input_size, 3), np.uint8)
        config = self.postprocess
        if self.description.postprocess == "host":  # the best of each class counts as found
            config = replace(config, nms="fast", score_threshold=0.0, top_k=1, all_classes=False)
        if keyframes is None:
            self._dissect(image, config)
        else:
            stream = self.new_stream(replace(keyframes, propagated_frames=0))
            for _ in range(2):  # the second one is no keyframe, unless each is one
                self._dissect(image, config, stream=stream)

    def close(self) -> None:
        """Free the backend."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _rescores(self) -> bool:
        """Whether mask re-scoring is a graph of its own."""
        return self.description.postprocess == "host" and self.description.model.mask_rescoring

    def _run(
        self,
        backend: Backend,
        graph: str,
        inputs: Mapping[str, Array],
        stream: Stream | None,
    ) -> dict[str, Array]:
        """Run the network, and leave a keyframe's features with the stream."""
        try:
            outputs = backend.run(graph, inputs, keep=KEPT)
        except BaseException:
            if stream is not None:
                stream.reset()  # it counts on features that are not there
            raise
        if stream is not None and graph == "keyframe":
            stream.keep(outputs)
        return outputs

    def _select(
        self, backend: Backend, outputs: Mapping[str, Array], config: PostprocessConfig
    ) -> Selection:
        if self.description.postprocess == "graph":
            return select_finished(outputs, config)
        if "towers" not in outputs:
            return select_detections(outputs, config)
        locate = partial(locate_priors, backend, outputs["towers"], model=self.description.model)
        return select_detections(outputs, config, locate=locate)

    def _prototypes(
        self,
        backend: Backend,
        outputs: Mapping[str, Array],
        selection: Selection,
        *,
        whole: bool,
    ) -> np.ndarray:
        """(Hp, Wp, K) float32, at least where the masks are."""
        if "p3" not in outputs:
            # Half as a GPU sends it, which numpy does not compute with fast.
            return np.asarray(outputs["prototypes"], np.float32)
        model = self.description.model
        height, width = model.prototype_size
        cells = box_cells(selection.boxes, (height, width))
        if whole:
            cells = np.array([[0, 0, width, height]])
        return prototypes_inside(backend, outputs["p3"], cells, model=model)


class _Stopwatch:
    """A backend that counts the seconds of its runs."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.seconds = 0.0
        self.on_gpu = backend.on_gpu
        self.close = backend.close

    def run(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> dict[str, Array]:
        started = time.perf_counter()
        outputs = self._backend.run(graph, inputs, keep=keep)
        self.seconds += time.perf_counter() - started
        return outputs


def _rescore(backend: Backend, selection: Selection, soft: SoftMasks) -> np.ndarray:
    """(N,) float32 class scores times the predicted IoU of each mask (YOLACT++ section 4.3).

    The network sees masks as the reference gives them: soft, cropped, not enlarged.
    """
    inputs = {"masks": soft.dense(), "class_ids": selection.class_ids}
    mask_scores: np.ndarray = selection.scores * backend.run("rescore", inputs)["mask_iou"]
    return mask_scores


def check_postprocess(config: PostprocessConfig, description: ModelDescription) -> None:
    """Hold settings against a model.

    Raises:
        ConfigError: the model has NMS inside its graph, and the settings ask for another one.
    """
    if description.postprocess != "graph":
        return
    defaults = PostprocessConfig()
    for name in FIXED_IN_GRAPH:
        value, fixed = getattr(config, name), getattr(defaults, name)
        if value != fixed:
            raise ConfigError(
                f"{name} is {value!r}, but this model has NMS inside its graph, with {fixed!r}. "
                "Export it with --nms host to choose at run time."
            )
