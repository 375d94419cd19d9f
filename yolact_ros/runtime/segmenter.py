"""The one pipeline from an image to instances; node, command line and evaluation call it."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

import numpy as np

from yolact_ros.config import PostprocessConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends import Backend, open_backend
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.masks import (
    cropped_spans,
    dense_masks,
    mask_enlarger,
    soft_crops,
)
from yolact_ros.runtime.postprocess import Candidates, boxes_in_pixels, select_detections
from yolact_ros.runtime.preprocess import check_image, prepare_image


class Segmenter:
    """Segments one image after another with one network.

    Attributes:
        description: the network.
        postprocess: thresholds and limits; may be replaced between two images.
    """

    def __init__(
        self,
        backend: Backend,
        description: ModelDescription,
        postprocess: PostprocessConfig | None = None,
    ) -> None:
        """Take over a backend, which `close` closes."""
        self._backend = backend
        self.description = description
        self.postprocess = postprocess or PostprocessConfig()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        backend: str = "auto",
        postprocess: PostprocessConfig | None = None,
        threads: int = 0,
    ) -> Segmenter:
        """Open a bundle (a folder) or a checkpoint (a file).

        Args:
            path: the model.
            backend: `onnxruntime`, `torch`, or `auto`: what the path calls for.
            postprocess: thresholds and limits.
            threads: of one operator; 0 takes one for each processor core.

        Raises:
            BundleError, WeightsError: the model cannot be read.
            BackendError: the library is missing or refuses the model.
        """
        opened, description = open_backend(path, backend, threads=threads)
        return cls(opened, description, postprocess)

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the backend."""
        self._backend.close()

    def warm_up(self) -> None:
        """Run every graph once: the first run allocates memory and is slow.

        Raises:
            BackendError: a graph fails or gives what was not expected.
        """
        height, width = self.description.model.input_size
        self.segment(np.zeros((height, width, 3), np.uint8))
        if self.description.postprocess == "host" and self.description.model.mask_rescoring:
            shape = (1, *self.description.model.prototype_size)
            self._mask_iou(np.zeros(shape, np.float32), np.zeros(1, np.int64))

    def segment(self, image: np.ndarray) -> Detections:
        """Find the instances of one image.

        Args:
            image: (H, W, 3) uint8 BGR, any strides.

        Raises:
            ValueError: the array is no such image.
            BackendError: the backend failed.
        """
        check_image(image)
        config = self.postprocess
        started = time.perf_counter()
        prepared = prepare_image(image, self.description.model.input_size)
        prepared_at = time.perf_counter()
        outputs = self._backend.run("detect", {"image": prepared})
        inferred_at = time.perf_counter()
        candidates, mask_scores = self._select(outputs, config)
        prototypes = outputs["prototypes"]
        spans = cropped_spans(candidates.boxes, prototypes.shape[:2])
        crops = soft_crops(prototypes, candidates.coefficients, spans)
        if mask_scores is None:
            mask_scores = candidates.scores * self._predicted_iou(crops, spans, candidates)
        size = (image.shape[0], image.shape[1])
        rois, masks = _enlarge(crops, spans, size, prototypes=prototypes, config=config)
        boxes = boxes_in_pixels(candidates.boxes, size)
        done_at = time.perf_counter()
        return Detections(
            boxes=boxes,
            scores=candidates.scores,
            mask_scores=mask_scores.astype(np.float32),
            class_ids=candidates.class_ids,
            mask_rois=rois,
            masks=masks,
            image_size=size,
            timings={
                "preprocess": (prepared_at - started) * 1e3,
                "inference": (inferred_at - prepared_at) * 1e3,
                "postprocess": (done_at - inferred_at) * 1e3,
            },
        )

    def _select(
        self, outputs: dict[str, np.ndarray], config: PostprocessConfig
    ) -> tuple[Candidates, np.ndarray | None]:
        """Choose detections, or read the graph's choice; with their mask scores if known."""
        if self.description.postprocess == "host":
            chosen = select_detections(
                outputs["boxes"], outputs["class_scores"], outputs["coefficients"], config=config
            )
            return chosen, None if self.description.model.mask_rescoring else chosen.scores
        kept = np.flatnonzero(outputs["scores"] > config.score_threshold)[: config.max_detections]
        fields = (outputs[name][kept] for name in ("boxes", "scores", "class_ids", "coefficients"))
        return Candidates(*fields), outputs["mask_scores"][kept]

    def _predicted_iou(
        self, crops: list[np.ndarray], spans: np.ndarray, candidates: Candidates
    ) -> np.ndarray:
        """(N,) float32: how well each mask covers its object, as the network predicts."""
        if not crops:
            return np.zeros(0, np.float32)
        masks = dense_masks(crops, spans, self.description.model.prototype_size)
        return self._mask_iou(masks, candidates.class_ids)

    def _mask_iou(self, masks: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        inputs = {"masks": masks, "class_ids": class_ids.astype(np.int64)}
        outputs = self._backend.run("rescore", inputs)
        if len(outputs["mask_iou"]) != len(masks):
            raise BackendError("Graph 'rescore' did not give one value for each mask.")
        return outputs["mask_iou"]


def _enlarge(
    crops: list[np.ndarray],
    spans: np.ndarray,
    image_size: tuple[int, int],
    *,
    prototypes: np.ndarray,
    config: PostprocessConfig,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    enlarger = mask_enlarger((prototypes.shape[0], prototypes.shape[1]), image_size)
    rois = np.zeros((len(crops), 4), np.int32)
    masks = []
    for i, (crop, span) in enumerate(zip(crops, spans, strict=True)):
        rois[i], mask = enlarger.enlarge(crop, span, threshold=config.mask_threshold)
        masks.append(mask)
    return rois, tuple(masks)
