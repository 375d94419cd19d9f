"""Define the forms of the graph `detect`: what it computes, and what other graphs add.

`model.json` names the form. The graphs of a bundle for video (`keyframe`, `non_keyframe`,
`non_keyframe_flow`) have the same outputs.

In the form `on_demand`, the graph `detect` classifies all priors. Boxes and coefficients are
computed for the few that pass the threshold, prototypes for the part of the image inside boxes.
The numbers equal those of the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from yolact_ros.config import ModelConfig, PostprocessConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends import Array, Backend, output_of_shape
from yolact_ros.runtime.masks import SoftMasks, assemble_masks, assembled_masks, box_cells
from yolact_ros.runtime.postprocess import (
    Selection,
    finished_rows,
    select_detections,
    select_finished,
)

# Margin of P3 cells that prototypes depend on: three for the convolutions at P3's size, one for
# the upsampling together with the convolution after it.
HALO = 4


def predict_priors(
    backend: Backend, head_features: Array, priors: np.ndarray, *, model: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Compute boxes and coefficients of selected priors.

    Args:
        backend: provides the graph `boxes_and_coefficients`.
        head_features: output of `detect` of this name.
        priors: (n,) int64.
        model: the network.

    Returns:
        (n, 4) float32 x1 y1 x2 y2 as fractions of the network's input, and (n, K) float32.

    Raises:
        BackendError: the backend fails, or returns arrays of other shapes.
    """
    if not len(priors):
        return np.zeros((0, 4), np.float32), np.zeros((0, model.num_prototypes), np.float32)
    cells, within = np.divmod(priors, model.priors_per_cell)
    cells, rows = np.unique(cells, return_inverse=True)
    inputs = {"head_features": head_features, "cells": cells}
    found = backend.run("boxes_and_coefficients", inputs)
    sizes = {"boxes": 4, "coefficients": model.num_prototypes}
    boxes, coefficients = (
        output_of_shape(found, name, (len(cells), model.priors_per_cell, size))[rows, within]
        for name, size in sizes.items()
    )
    return boxes, coefficients


def prototypes_inside(
    backend: Backend, p3: np.ndarray, cells: np.ndarray, *, model: ModelConfig
) -> np.ndarray:
    """Compute the prototypes in the rectangle around some boxes.

    Args:
        backend: provides the graph `prototypes`.
        p3: (1, channels, h, w) float32, output of `detect` of this name.
        cells: (N, 4) int64 x1 y1 x2 y2, half-open, prototype cells of each box; N may be 0.
        model: the network.

    Returns:
        (Hp, Wp, K) float32, zero outside the rectangle.

    Raises:
        BackendError: the backend fails, or returns an array of another shape.
    """
    prototypes = np.zeros((*model.prototype_size, model.num_prototypes), np.float32)
    cells = cells[(cells[:, :2] < cells[:, 2:]).all(axis=1)]
    if not len(cells):
        return prototypes
    x1, y1 = cells[:, :2].min(axis=0)
    x2, y2 = cells[:, 2:].max(axis=0)
    rows, columns = p3.shape[2:]
    top, left = max(0, y1 // 2 - HALO), max(0, x1 // 2 - HALO)
    bottom, right = min(rows, -(-y2 // 2) + HALO), min(columns, -(-x2 // 2) + HALO)
    part = np.ascontiguousarray(p3[:, :, top:bottom, left:right])
    shape = (2 * part.shape[2], 2 * part.shape[3], model.num_prototypes)
    found = output_of_shape(backend.run("prototypes", {"p3": part}), "prototypes", shape)
    inside = found[y1 - 2 * top : y2 - 2 * top, x1 - 2 * left : x2 - 2 * left]
    prototypes[y1:y2, x1:x2] = inside
    return prototypes


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
