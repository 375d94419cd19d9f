"""Define the forms of the graph `detect`: what it computes, and what other graphs add.

`model.json` names the form. The graphs of a bundle for video (`keyframe`, `non_keyframe`,
`non_keyframe_flow`) have the same outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from yolact_ros.config import ModelConfig, PostprocessConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends import Array, Backend, output_of_shape
from yolact_ros.runtime.lazy_heads import predict_priors, prototypes_inside
from yolact_ros.runtime.masks import SoftMasks, assemble_masks, assembled_masks, box_cells
from yolact_ros.runtime.postprocess import (
    Selection,
    finished_rows,
    select_detections,
    select_finished,
)

Outputs = Mapping[str, Array]


class Dense:
    """Reads a `detect` that outputs all priors and all prototypes; base of the other forms.

    Attributes:
        outputs: outputs of `detect` that post-processing reads.
        graphs: further graphs that a bundle of this form requires.
        on_device: outputs of `detect` that only these graphs read.
        nms_inside: whether NMS and re-scoring are in the graph.
        fixed: settings that are fixed in the graph, at their defaults except for `top_k`.
        model: the network.
    """

    outputs: tuple[str, ...] = ("boxes", "class_scores", "coefficients", "prototypes")
    graphs: tuple[str, ...] = ()
    on_device: tuple[str, ...] = ()
    nms_inside = False
    fixed: tuple[str, ...] = ()

    def __init__(self, model: ModelConfig) -> None:
        self.model = model

    def select(self, outputs: Outputs, config: PostprocessConfig, backend: Backend) -> Selection:
        """Choose the detections of one image; `backend` runs the further graphs.

        Raises:
            BackendError: the coefficients have the wrong shape, or `backend` fails.
        """
        rows = len(outputs["class_scores"])
        output_of_shape(outputs, "coefficients", (rows, self.model.num_prototypes))
        return select_detections(outputs, config)

    def prototypes(
        self, outputs: Outputs, boxes: np.ndarray | None, backend: Backend
    ) -> np.ndarray:
        """Return (Hp, Wp, K) float32, at least inside `boxes` (N, 4), everywhere if None."""
        # Graphs from elsewhere may have prototypes of another size.
        size = self.model.prototype_size if self.nms_inside else (-1, -1)
        shape = (*size, self.model.num_prototypes)
        # A GPU returns half precision, in which numpy is slow.
        return np.asarray(output_of_shape(outputs, "prototypes", shape), np.float32)

    def soft_masks(
        self, outputs: Outputs, selection: Selection, config: PostprocessConfig, backend: Backend
    ) -> SoftMasks:
        """Assemble the masks of the selected detections.

        Raises:
            BackendError: prototypes or coefficients are not finite, or prototypes have the wrong
                shape.
        """
        boxes = selection.boxes if config.crop_masks else None
        prototypes = self.prototypes(outputs, boxes, backend)
        return assemble_masks(
            prototypes, selection.coefficients, selection.boxes, crop=config.crop_masks
        )


class OnDemand(Dense):
    """Reads a `detect` that classifies all priors; the rest is computed only where needed."""

    outputs = ("class_scores", "head_features", "p3")
    graphs = ("boxes_and_coefficients", "prototypes")
    on_device = ("head_features",)

    def select(self, outputs: Outputs, config: PostprocessConfig, backend: Backend) -> Selection:
        """Compute boxes and coefficients of the priors that enter NMS."""
        predict = partial(predict_priors, backend, outputs["head_features"], model=self.model)
        return select_detections(outputs, config, predict=predict)

    def prototypes(
        self, outputs: Outputs, boxes: np.ndarray | None, backend: Backend
    ) -> np.ndarray:
        """Compute the prototypes around the boxes, or all of them on a GPU; the rest is zero."""
        height, width = self.model.prototype_size
        # On a GPU, preparing for each new shape costs more than the smaller shape saves.
        if boxes is None or (backend.on_gpu and len(boxes)):
            cells = np.array([[0, 0, width, height]])
        else:
            cells = box_cells(boxes, (height, width))
        return prototypes_inside(backend, outputs["p3"], cells, model=self.model)


class WithNms(Dense):
    """Reads a `detect` that outputs finished detections, best first, and all prototypes."""

    outputs = ("boxes", "scores", "mask_scores", "class_ids", "coefficients", "prototypes")
    nms_inside = True
    fixed: tuple[str, ...] = ("nms", "nms_iou_threshold", "top_k", "all_classes")

    def select(self, outputs: Outputs, config: PostprocessConfig, backend: Backend) -> Selection:
        """Drop rows that do not exceed the score threshold."""
        rows = len(outputs["scores"])
        output_of_shape(outputs, "coefficients", (rows, self.model.num_prototypes))
        return select_finished(outputs, config)


class WithMasks(WithNms):
    """Reads a `detect` that outputs finished detections, best first, with cropped 8-bit masks.

    The host enlarges them to the image, whose size the graph does not know, and applies the
    threshold then, as the reference does.
    """

    outputs = ("boxes", "scores", "mask_scores", "class_ids", "coefficients", "masks")
    fixed = (*WithNms.fixed, "crop_masks")

    def prototypes(
        self, outputs: Outputs, boxes: np.ndarray | None, backend: Backend
    ) -> np.ndarray:
        """Raise an error, because the prototypes stay inside the graph.

        Raises:
            BackendError: always.
        """
        raise BackendError(
            f"Model {self.model.name!r} assembles masks inside its graph and outputs no "
            "prototypes; export it with --masks host."
        )

    def soft_masks(
        self, outputs: Outputs, selection: Selection, config: PostprocessConfig, backend: Backend
    ) -> SoftMasks:
        """Return the graph's own masks of the selected detections."""
        shape = (len(outputs["scores"]), *self.model.prototype_size)
        masks = output_of_shape(outputs, "masks", shape)[finished_rows(outputs, config)]
        return assembled_masks(masks, selection.boxes)


# By the name that `model.json` uses.
DETECT_FORMS: dict[str, type[Dense]] = {
    "on_demand": OnDemand,
    "dense": Dense,
    "with_nms": WithNms,
    "with_masks": WithMasks,
}
