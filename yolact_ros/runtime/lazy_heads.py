"""What the network computes only where it is needed: boxes, coefficients and prototypes.

The graph `detect` classifies all priors. Boxes and coefficients follow for the few that pass the
threshold, prototypes for the part of the image that is inside boxes. The numbers are those of the
whole network.
"""

from __future__ import annotations

import numpy as np

from yolact_ros.config import ModelConfig
from yolact_ros.runtime.backends import Array, Backend

# Cells of P3 around a part of it that its prototypes depend on: three for the convolutions at
# P3's size, one for the enlargement together with the convolution after it.
HALO = 4


def locate_priors(
    backend: Backend, towers: Array, priors: np.ndarray, *, model: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and coefficients of chosen priors.

    Args:
        backend: has the graph `locate`.
        towers: what `detect` gave under this name.
        priors: (n,) int64.
        model: the network.

    Returns:
        (n, 4) float32 x1 y1 x2 y2 as fractions of the network's input, and (n, K) float32.
    """
    if not len(priors):
        return np.zeros((0, 4), np.float32), np.zeros((0, model.num_prototypes), np.float32)
    cells, within = np.divmod(priors, model.priors_per_cell)
    cells, places = np.unique(cells, return_inverse=True)
    found = backend.run("locate", {"towers": towers, "cells": cells})
    return found["boxes"][places, within], found["coefficients"][places, within]


def prototypes_inside(
    backend: Backend, p3: np.ndarray, cells: np.ndarray, *, model: ModelConfig
) -> np.ndarray:
    """Prototypes in the rectangle around some boxes.

    Args:
        backend: has the graph `prototypes`.
        p3: (1, channels, h, w) float32, what `detect` gave under this name.
        cells: (N, 4) int64 x1 y1 x2 y2, half-open, prototype cells of each box; N may be 0.
        model: the network.

    Returns:
        (Hp, Wp, K) float32, zero outside the rectangle.
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
    found = backend.run("prototypes", {"p3": part})["prototypes"]
    inside = found[y1 - 2 * top : y2 - 2 * top, x1 - 2 * left : x2 - 2 * left]
    prototypes[y1:y2, x1:x2] = inside
    return prototypes
