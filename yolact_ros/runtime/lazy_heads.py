"""Compute boxes, coefficients and prototypes only where they are needed.

The graph `detect` classifies all priors. Boxes and coefficients are computed for the few that pass
the threshold, prototypes for the part of the image inside boxes. The numbers equal those of the
whole network.
"""

from __future__ import annotations

import numpy as np

from yolact_ros.config import ModelConfig
from yolact_ros.runtime.backends import Array, Backend, output_of_shape

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
