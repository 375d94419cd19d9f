"""Compute the priors, from which the network predicts offsets (YOLACT section 3, after SSD).

Everything here is relative to the image: 0 is its left or top edge, 1 its right or bottom edge.
"""

from __future__ import annotations

import math

import numpy as np

from yolact_ros.config import ModelConfig

# The network learns offsets divided by these (SSD's "variances").
CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2


def make_priors(model: ModelConfig) -> np.ndarray:
    """Lay out the priors of P3..P7.

    Order: level, row, column, scale, ratio, as the prediction head flattens its output
    (dbolya/yolact `yolact.py::PredictionModule.make_priors`).

    Returns:
        (P, 4) float32, centre x, centre y, width, height as fractions of the input.
    """
    levels = [
        _level_priors(model, size, scales)
        for size, scales in zip(model.feature_sizes, model.prior_scales, strict=True)
    ]
    return np.concatenate(levels).astype(np.float32)


def _level_priors(
    model: ModelConfig, size: tuple[int, int], scales: tuple[float, ...]
) -> np.ndarray:
    rows, columns = size
    input_height, input_width = model.input_size
    shapes = []
    for scale in scales:
        for ratio in model.prior_ratios:
            width = scale * math.sqrt(ratio) / input_width
            height = scale / math.sqrt(ratio) / input_height
            if model.square_priors:
                # The reference sets the height to the width; with a square input both are squares.
                height = width * input_width / input_height
            shapes.append((width, height))
    priors = np.empty((rows, columns, len(shapes), 4), np.float64)
    priors[..., 0] = ((np.arange(columns) + 0.5) / columns)[None, :, None]
    priors[..., 1] = ((np.arange(rows) + 0.5) / rows)[:, None, None]
    priors[..., 2:] = np.asarray(shapes)
    return priors.reshape(-1, 4)


def neighbour_cells(model: ModelConfig) -> np.ndarray:
    """Return the 3x3 neighbourhood of every cell of P3..P7.

    Cells are numbered level by level, row by row, like priors.

    Returns:
        (cells, 9) int64, row by row; the total number of cells marks a neighbour outside the map.
    """
    total = sum(rows * columns for rows, columns in model.feature_sizes)
    tables, first = [], 0
    for rows, columns in model.feature_sizes:
        cells = first + np.arange(rows * columns).reshape(rows, columns)
        padded = np.pad(cells, 1, constant_values=total)
        around = [padded[r : r + rows, c : c + columns] for r in range(3) for c in range(3)]
        tables.append(np.stack(around, axis=-1).reshape(-1, 9))
        first += rows * columns
    return np.concatenate(tables)
