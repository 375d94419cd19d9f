"""A model's graphs and what the host computes between them: selection, prototypes, soft masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from yolact_ros.config import PostprocessConfig
from yolact_ros.errors import BackendError, ConfigError
from yolact_ros.runtime.backends import Array, AsyncBackend, Backend, Run
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.lazy_heads import locate_priors, prototypes_inside
from yolact_ros.runtime.masks import SoftMasks, assemble_masks, box_cells
from yolact_ros.runtime.postprocess import Selection, select_detections, select_finished

# Features that a graph `keyframe` leaves for later images; `lateral` only with a learned flow.
FEATURES = ("x4", "x5", "lateral")

# Outputs that the host passes on without looking into them.
KEPT = (*FEATURES, "towers")

# Settings that a graph with NMS inside has built in, with their default values.
FIXED_IN_GRAPH = ("nms", "nms_iou_threshold", "top_k", "all_classes")


@dataclass(frozen=True, eq=False)
class Inference:
    """What the network found in one image.

    Attributes:
        selection: N instances, boxes in fractions of the network's input.
        soft: their masks at the resolution of the prototypes.
        seconds: spent in the backend.
    """

    selection: Selection
    soft: SoftMasks
    seconds: float


class Network:
    """Runs a model's graphs; shared by a segmenter and its streams.

    Attributes:
        backend: the library that runs the graphs.
        description: the model.
    """

    def __init__(self, backend: Backend, description: ModelDescription) -> None:
        """Take over a backend.

        Raises:
            BackendError: the model takes several images at once.
        """
        if description.batch > 1:
            raise BackendError(
                f"Model {description.model.name!r} was exported for batches of "
                f"{description.batch} images; this takes one. Export it with --batch 1."
            )
        self.backend = backend
        self.description = description

    @property
    def whole_graph(self) -> str:
        """Name of the graph that runs every layer."""
        return "keyframe" if self.description.warps else "detect"

    def limited(self, config: PostprocessConfig) -> PostprocessConfig:
        """Return `config` with at most as many detections as the model was exported for."""
        most = self.description.max_detections
        return config if config.max_detections <= most else replace(config, max_detections=most)

    @property
    def overlaps(self) -> bool:
        """Whether all of a run is on a device, so that the CPU can work on other images."""
        backend, graph = self.backend, self.description.postprocess == "graph"
        return graph and backend.on_gpu and isinstance(backend, AsyncBackend)

    def submit(self, graph: str, inputs: Mapping[str, Array]) -> Run:
        """Begin to run one graph on an image.

        Args:
            graph: `whole_graph`, `non_keyframe` or `non_keyframe_flow`.
            inputs: `image` (1, H, W, 3) uint8 BGR, and a keyframe's features where the graph
                takes them.

        Raises:
            BackendError: the backend fails.
        """
        if isinstance(self.backend, AsyncBackend):
            return self.backend.submit(graph, inputs, keep=KEPT)
        return BlockingRun(partial(self.backend.run, graph, inputs, keep=KEPT))

    def interpret(
        self, outputs: Mapping[str, Array], config: PostprocessConfig, *, seconds: float
    ) -> Inference:
        """Select the detections among a graph's outputs and assemble their soft masks.

        Args:
            outputs: what `Run.fetch` returned.
            config: thresholds and limits.
            seconds: that the run took.

        Raises:
            BackendError: the backend fails in one of the graphs that follow.
        """
        backend = Stopwatch(self.backend, seconds)
        config = self.limited(config)
        selection = self.select(backend, outputs, config)
        prototypes = self.prototypes(backend, outputs, selection, whole=not config.crop_masks)
        soft = assemble_masks(
            prototypes, selection.coefficients, selection.boxes, crop=config.crop_masks
        )
        if not config.rescore_masks:
            selection = replace(selection, mask_scores=selection.scores)
        elif self._rescores and len(selection):
            selection = replace(selection, mask_scores=_rescore(backend, selection, soft))
        return Inference(selection, soft, backend.seconds)

    def select(
        self, backend: Backend, outputs: Mapping[str, Array], config: PostprocessConfig
    ) -> Selection:
        """Choose the detections among a graph's outputs; `backend` runs the box head."""
        if self.description.postprocess == "graph":
            return select_finished(outputs, config)
        if "towers" not in outputs:
            return select_detections(outputs, config)
        locate = partial(locate_priors, backend, outputs["towers"], model=self.description.model)
        return select_detections(outputs, config, locate=locate)

    def prototypes(
        self,
        backend: Backend,
        outputs: Mapping[str, Array],
        selection: Selection,
        *,
        whole: bool,
    ) -> np.ndarray:
        """(Hp, Wp, K) float32: everywhere if `whole`, otherwise at least inside the boxes."""
        if "p3" not in outputs:
            # A GPU sends half precision, which numpy computes with slowly.
            return np.asarray(outputs["prototypes"], np.float32)
        model = self.description.model
        height, width = model.prototype_size
        cells = box_cells(selection.boxes, (height, width))
        if whole:
            cells = np.array([[0, 0, width, height]])
        return prototypes_inside(backend, outputs["p3"], cells, model=model)

    @property
    def _rescores(self) -> bool:
        """Whether mask re-scoring is a graph of its own."""
        return self.description.postprocess == "host" and self.description.model.mask_rescoring


class Stopwatch:
    """A backend that adds up the seconds of its runs."""

    def __init__(self, backend: Backend, seconds: float) -> None:
        self._backend = backend
        self.seconds = seconds
        self.on_gpu = backend.on_gpu
        self.close = backend.close

    def run(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> dict[str, Array]:
        """Run a graph; see `Backend.run`."""
        started = time.perf_counter()
        outputs = self._backend.run(graph, inputs, keep=keep)
        self.seconds += time.perf_counter() - started
        return outputs


class BlockingRun:
    """A run of a backend that returns when the outputs are there; it takes place in `fetch`."""

    def __init__(self, run: Callable[[], dict[str, Array]]) -> None:
        self.seconds = 0.0
        self._run = run

    def fetch(self) -> dict[str, Array]:
        """Run; see `Run.fetch`."""
        started = time.perf_counter()
        outputs = self._run()
        self.seconds = time.perf_counter() - started
        return outputs


def _rescore(backend: Backend, selection: Selection, soft: SoftMasks) -> np.ndarray:
    """(N,) float32 class scores times the predicted IoU of each mask (YOLACT++ section 4.3).

    The network sees masks as the reference gives them: soft, cropped, not enlarged.
    """
    inputs = {"masks": soft.dense(), "class_ids": selection.class_ids}
    mask_scores: np.ndarray = selection.scores * backend.run("rescore", inputs)["mask_iou"]
    return mask_scores


def check_postprocess(config: PostprocessConfig, description: ModelDescription) -> None:
    """Check settings against a model.

    Raises:
        ConfigError: the model has NMS inside its graph and the settings ask for a different one.
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
