"""Assemble instance masks from prototypes.

Masks are built only inside their boxes, and equal the reference's, which builds each one on the
whole image (dbolya/yolact `layers/output_utils.py::postprocess`): sigmoid and crop.

Nothing here calls BLAS. Its threads wait for each other by spinning, which on two busy cores
turns products of 1 ms into stalls of 100 ms and more; `einsum` takes the same time as BLAS on one
thread, without a process-wide setting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolact_ros.errors import BackendError


@dataclass(frozen=True, eq=False)
class SoftMasks:
    """Holds masks at prototype resolution, each only inside its crop; N may be 0.

    Attributes:
        cells: (N, 4) int64 x1 y1 x2 y2, half-open: the prototype cells that each mask covers.
        values: N arrays (y2 - y1, x2 - x1) float32 in [0, 1].
        size: (Hp, Wp) of the prototypes.
    """

    cells: np.ndarray
    values: tuple[np.ndarray, ...]
    size: tuple[int, int]

    def dense(self) -> np.ndarray:
        """Return the masks on the full prototype grid, (N, Hp, Wp) float32, zero outside boxes."""
        masks = np.zeros((len(self.values), *self.size), np.float32)
        for mask, values, (x1, y1, x2, y2) in zip(masks, self.values, self.cells, strict=True):
            mask[y1:y2, x1:x2] = values
        return masks


def assemble_masks(
    prototypes: np.ndarray, coefficients: np.ndarray, boxes: np.ndarray, *, crop: bool = True
) -> SoftMasks:
    """Combine prototypes into one soft mask per instance (YOLACT section 3.1, equation 1).

    Args:
        prototypes: (Hp, Wp, K) float32.
        coefficients: (N, K) float32 in [-1, 1].
        boxes: (N, 4) float32 x1 y1 x2 y2 as fractions of the network's input.
        crop: crop each mask at its box, which is how the networks are trained.

    Raises:
        BackendError: a mask is not finite, because its prototypes or coefficients are not.
    """
    height, width = prototypes.shape[:2]
    if crop:
        cells = box_cells(boxes, (height, width))
    else:
        cells = np.tile([0, 0, width, height], (len(boxes), 1))
    heights, widths = cells[:, 3] - cells[:, 1], cells[:, 2] - cells[:, 0]
    flat = np.empty((heights * widths).sum(), np.float32)
    values = consecutive(flat, heights, widths)
    products = zip(cells.tolist(), coefficients, values, strict=True)
    for (x1, y1, x2, y2), weights, total in products:
        np.einsum("ijk,k->ij", prototypes[y1:y2, x1:x2], weights, out=total)
    # The largest and smallest are NaN if any is, and take no array of their own.
    if flat.size and not np.isfinite([flat.min(), flat.max()]).all():
        raise BackendError(
            "The model returned prototypes or coefficients that are not finite. If it computes in "
            "half precision, export it with --precision fp32; otherwise check its checkpoint."
        )
    np.negative(flat, out=flat)
    with np.errstate(over="ignore"):  # exp(-x) may be infinite, which correctly yields 0
        np.exp(flat, out=flat)
    flat += 1
    np.divide(1, flat, out=flat)
    return SoftMasks(cells, values, (height, width))


def consecutive(
    flat: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return views (heights[i], widths[i]) of consecutive parts of a flat array."""
    ends = np.cumsum(heights * widths)
    return tuple(
        flat[end - h * w : end].reshape(h, w)
        for end, h, w in zip(ends.tolist(), heights.tolist(), widths.tolist(), strict=True)
    )


def assembled_masks(masks: np.ndarray, boxes: np.ndarray) -> SoftMasks:
    """Convert masks that were assembled and cropped inside a graph.

    Args:
        masks: (N, Hp, Wp) uint8, 255 times the soft masks.
        boxes: see `assemble_masks`.
    """
    height, width = masks.shape[1:]
    cells = box_cells(boxes, (height, width))
    values = tuple(
        mask[y1:y2, x1:x2] * np.float32(1 / 255)
        for mask, (x1, y1, x2, y2) in zip(masks, cells, strict=True)
    )
    return SoftMasks(cells, values, (height, width))


def box_cells(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the prototype cells of each box, padded by one cell.

    The reference keeps cell c where `c >= x1 * Wp - 1` and `c < x2 * Wp + 1`, compared as floats
    without rounding (`layers/box_utils.py::crop`).

    Args:
        boxes: (N, 4) float32 x1 y1 x2 y2 as fractions; may be outside the input, or not finite.
        size: (Hp, Wp).

    Returns:
        (N, 4) int64 x1 y1 x2 y2, half-open; x1 == x2 or y1 == y2 where no cell is inside.
    """
    height, width = size
    scale = np.array([width, height, width, height], np.float32)
    with np.errstate(over="ignore"):
        scaled = np.nan_to_num(boxes * scale, nan=-1e6)
    scaled = np.clip(scaled, -2, scale + 2)
    low = np.minimum(scaled[:, :2], scaled[:, 2:]) - 1
    high = np.maximum(scaled[:, :2], scaled[:, 2:]) + 1
    first = np.clip(np.ceil(low), 0, scale[:2])
    end = np.clip(np.ceil(high), first, scale[:2])
    return np.concatenate([first, end], axis=1).astype(np.int64)
