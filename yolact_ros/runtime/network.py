"""Run a model's graphs, and do the work between them on the host."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from yolact_ros.config import PostprocessConfig
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.backends import Array, AsyncBackend, Backend, PendingRun, Run
from yolact_ros.runtime.bundle import FEATURES, ModelDescription
from yolact_ros.runtime.detect_forms import DETECT_FORMS
from yolact_ros.runtime.masks import SoftMasks
from yolact_ros.runtime.postprocess import Selection


@dataclass(frozen=True, eq=False)
class Inference:
    """Holds the network's detections in one image.

    Attributes:
        selection: N instances, boxes in fractions of the network's input.
        soft: their masks at prototype resolution.
        seconds: time spent in the backend.
    """

    selection: Selection
    soft: SoftMasks
    seconds: float


class Network:
    """Runs a model's graphs for a segmenter and its streams.

    Attributes:
        backend: the library that runs the graphs.
        description: the model.
        form: how to read the outputs of `detect`.
    """

    def __init__(self, backend: Backend, description: ModelDescription) -> None:
        self.backend = backend
        self.description = description
        self.form = DETECT_FORMS[description.detect_form](description.model)

    @property
    def whole_graph(self) -> str:
        """Return the name of the graph that runs every layer."""
        return "keyframe" if self.description.warps else "detect"

    def limited(self, config: PostprocessConfig) -> PostprocessConfig:
        """Return `config` with no more detections than the model was exported for."""
        most = self.description.max_detections
        return config if config.max_detections <= most else replace(config, max_detections=most)

    @property
    def overlaps(self) -> bool:
        """Return whether a run leaves the CPU free for other images."""
        backend = self.backend
        return self.form.nms_inside and backend.on_gpu and isinstance(backend, AsyncBackend)

    def submit(self, graph: str, inputs: Sequence[Mapping[str, Array]]) -> list[Run]:
        """Start running one graph on one image, or on as many as the model processes at once.

        Args:
            graph: `whole_graph`, `non_keyframe` or `non_keyframe_flow`.
            inputs: for each image, at most `ModelDescription.batch`: `image` (1, H, W, 3) uint8
                BGR, and a keyframe's features and a flow if the graph requires them.

        Returns:
            One run per image.

        Raises:
            BackendError: the backend fails.
        """
        if self.description.batch == 1:
            return [self._submit(graph, inputs[0])]
        missing = self.description.batch - len(inputs)
        padded = [*inputs, *[inputs[-1]] * missing]
        joined = {name: _join([one[name] for one in padded]) for name in inputs[0]}
        run = self._submit(graph, joined)
        return [PendingRun(partial(_image_of, run, index)) for index in range(len(inputs))]

    def _submit(self, graph: str, inputs: Mapping[str, Array]) -> Run:
        # Features and inputs of other graphs are passed on without being read by the host.
        keep = (*FEATURES, *self.form.on_device)
        if isinstance(self.backend, AsyncBackend):
            return self.backend.submit(graph, inputs, keep=keep)
        timed = Stopwatch(self.backend)
        return PendingRun(lambda: (timed.run(graph, inputs, keep=keep), timed.seconds))

    def interpret(
        self, outputs: Mapping[str, Array], config: PostprocessConfig, *, seconds: float
    ) -> Inference:
        """Select the detections among a graph's outputs and assemble their soft masks.

        Args:
            outputs: what `Run.fetch` returned.
            config: thresholds and limits.
            seconds: duration of the run.

        Raises:
            BackendError: the backend fails in one of the further graphs.
        """
        backend = Stopwatch(self.backend, seconds)
        config = self.limited(config)
        selection = self.form.select(outputs, config, backend)
        soft = self.form.soft_masks(outputs, selection, config, backend)
        rescores = self.description.model.mask_rescoring and not self.form.nms_inside
        if not config.rescore_masks:
            selection = replace(selection, mask_scores=selection.scores)
        elif rescores and len(selection):
            selection = replace(selection, mask_scores=_rescore(backend, selection, soft))
        return Inference(selection, soft, backend.seconds)


class Stopwatch:
    """Adds up the durations of a backend's runs."""

    def __init__(self, backend: Backend, seconds: float = 0.0) -> None:
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


def _image_of(run: Run, index: int) -> tuple[dict[str, Array], float]:
    """Return the outputs of one image of a batch, and the seconds of all of them together."""
    outputs = {
        # Features are inputs of a later batch, whose first dimension is that of the images.
        name: values[index : index + 1] if name in FEATURES else values[index]
        for name, values in run.fetch().items()
    }
    return outputs, run.seconds


def _join(values: Sequence[Array]) -> Array:
    """Join one input of several images: arrays (1, ...), or lists of one handle each."""
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [handle for value in values for handle in value]


def _rescore(backend: Backend, selection: Selection, soft: SoftMasks) -> np.ndarray:
    """Multiply class scores by predicted mask IoU, (N,) float32 (YOLACT++ section 4.3).

    The network receives masks as in the reference: soft, cropped, not upsampled.
    """
    inputs = {"masks": soft.dense(), "class_ids": selection.class_ids}
    mask_scores: np.ndarray = selection.scores * backend.run("rescore", inputs)["mask_iou"]
    return mask_scores


def check_postprocess(config: PostprocessConfig, description: ModelDescription) -> None:
    """Check settings against a model.

    Raises:
        ConfigError: a setting differs from the one that is fixed in the model's graph.
    """
    defaults = PostprocessConfig()
    for name in DETECT_FORMS[description.detect_form].fixed:
        value, default = getattr(config, name), getattr(defaults, name)
        built_in = (description.top_k or default) if name == "top_k" else default
        # Default values were not chosen by anybody, so they are compatible with every graph.
        if value not in (built_in, default):
            another = f" with --top-k {value}, or" if name == "top_k" else ""
            form = "--masks host" if name == "crop_masks" else "for ONNX Runtime with --nms host"
            raise ConfigError(
                f"{name} is {value!r}, but the graph of this model has a fixed {name} of "
                f"{built_in!r}. Use that value, or export the model again{another} {form}, where "
                "it can be set at run time."
            )
