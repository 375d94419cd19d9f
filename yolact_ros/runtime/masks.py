"""Assemble instance masks from prototypes, and upsample them to the source image.

Masks are built only inside their boxes, and equal the reference's, which builds each one on the
whole image (dbolya/yolact `layers/output_utils.py::postprocess`): sigmoid, crop, bilinear
enlargement, threshold.

Nothing here calls BLAS. Its threads wait for each other by spinning, which on two busy cores
turns products of 1 ms into stalls of 100 ms and more; `einsum` and row-wise interpolation take
the same time as BLAS on one thread, without a process-wide setting.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from yolact_ros.runtime.preprocess import Placement

# Floats per block of rows in the upsampling: two such blocks fit in a core's cache.
BLOCK = 32768


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
    """
    height, width = prototypes.shape[:2]
    if crop:
        cells = box_cells(boxes, (height, width))
    else:
        cells = np.tile([0, 0, width, height], (len(boxes), 1))
    heights, widths = cells[:, 3] - cells[:, 1], cells[:, 2] - cells[:, 0]
    ends = np.cumsum(heights * widths)
    flat = np.empty(ends[-1] if len(ends) else 0, np.float32)
    values = [
        flat[end - h * w : end].reshape(h, w)
        for end, h, w in zip(ends, heights, widths, strict=True)
    ]
    for (x1, y1, x2, y2), weights, total in zip(cells, coefficients, values, strict=True):
        np.einsum("ijk,k->ij", prototypes[y1:y2, x1:x2], weights, out=total)
    np.negative(flat, out=flat)
    with np.errstate(over="ignore"):  # exp(-x) may be infinite, which correctly yields 0
        np.exp(flat, out=flat)
    flat += 1
    np.divide(1, flat, out=flat)
    return SoftMasks(cells, tuple(values), (height, width))


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


def enlarge_masks(
    soft: SoftMasks, placement: Placement, threshold: float
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Upsample soft masks to the source image where they can exceed the threshold, and binarize.

    Args:
        soft: masks at the prototypes' resolution.
        placement: position of the source image in the network's input.
        threshold: a pixel belongs to the instance where its mask is above this.

    Returns:
        Regions (N, 4) int32 x1 y1 x2 y2, half-open, in pixels of the source image, and N bool
        arrays (y2 - y1, x2 - x1).
    """
    rows, columns = (
        axis_samples(cells, pixels, extent, shift)
        for cells, pixels, extent, shift in zip(
            soft.size, placement.image_size, placement.extent, placement.shift, strict=True
        )
    )
    # Between cells below the threshold no pixel can exceed it, so the other cells bound the mask.
    offsets = np.array([_bounds(values > threshold) for values in soft.values], np.int64)
    occupied = soft.cells[:, [0, 1, 0, 1]] + offsets.reshape(-1, 4)
    left, right = columns.region(occupied[:, 0], occupied[:, 2])
    top, bottom = rows.region(occupied[:, 1], occupied[:, 3])
    regions = np.stack([left, top, right, bottom], axis=1).astype(np.int32)
    scratch = np.empty((2, max(BLOCK, placement.image_size[1])), np.float32)
    masks = tuple(
        _enlarge(values, cells, region, rows, columns, threshold, scratch)
        for values, cells, region in zip(soft.values, soft.cells, regions, strict=True)
    )
    return regions, masks


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return x1 y1 x2 y2, half-open, around the set pixels of (h, w) bool, or zeros."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True, eq=False)
class AxisSamples:
    """Locates each pixel of one image axis between two prototype cells.

    Attributes:
        lower, upper: (pixels,) int64, the cells on both sides, ascending.
        weight: (pixels,) float32 fraction of the upper cell.
    """

    lower: np.ndarray
    upper: np.ndarray
    weight: np.ndarray

    def region(self, first: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the half-open pixel range that touches the cells from `first` up to `end`."""
        start = np.searchsorted(self.upper, first, side="left")
        stop = np.searchsorted(self.lower, end, side="left")
        empty = first >= end
        return np.where(empty, 0, start), np.where(empty, 0, np.maximum(start, stop))


@functools.lru_cache(maxsize=16)
def axis_samples(cells: int, pixels: int, extent: float, shift: float) -> AxisSamples:
    """Return the sample positions of bilinear interpolation with `align_corners=False`.

    Computed in float32 and in PyTorch's order of operations, so that a pixel on the edge of a mask
    falls on the same side as in the reference.

    Args:
        cells: prototype cells along the axis.
        pixels: pixels of the source image along the axis.
        extent: source pixels along the whole network input.
        shift: extent of the input before the image, in source pixels.
    """
    scale = np.float32(cells) / np.float32(extent)
    centres = np.arange(pixels, dtype=np.float32) + np.float32(0.5) + np.float32(shift)
    positions = np.clip(scale * centres - np.float32(0.5), 0, np.float32(cells - 1))
    lower = positions.astype(np.int64)
    upper = np.minimum(lower + 1, cells - 1)
    return AxisSamples(lower, upper, positions - lower.astype(np.float32))


def _enlarge(
    values: np.ndarray,
    cells: np.ndarray,
    region: np.ndarray,
    rows: AxisSamples,
    columns: AxisSamples,
    threshold: float,
    scratch: np.ndarray,
) -> np.ndarray:
    """Interpolate one mask, first along its rows, then along its columns in blocks of rows."""
    x1, y1, x2, y2 = region
    height, width = y2 - y1, x2 - x1
    mask = np.empty((height, width), bool)
    if not mask.size:
        return mask
    # Beyond the crop masks are zero: one ring of cells around the values takes part.
    padded = np.zeros((values.shape[0] + 2, values.shape[1] + 2), np.float32)
    padded[1:-1, 1:-1] = values
    first_column, first_row = cells[0] - 1, cells[1] - 1
    wide = padded.take(columns.lower[x1:x2] - first_column, axis=1, mode="clip")
    right = padded.take(columns.upper[x1:x2] - first_column, axis=1, mode="clip")
    right -= wide
    right *= columns.weight[x1:x2]
    wide += right
    # A pixel is set where its fraction of the step to the row below exceeds what is lacking.
    steps, lacking = np.diff(wide, axis=0), threshold - wide
    lower, fraction = rows.lower[y1:y2] - first_row, rows.weight[y1:y2, None]
    block = max(1, scratch.shape[1] // width)
    for start in range(0, height, block):
        end = min(start + block, height)
        rise, limit = scratch[:, : (end - start) * width].reshape(2, end - start, width)
        np.take(steps, lower[start:end], axis=0, out=rise, mode="clip")
        rise *= fraction[start:end]
        np.take(lacking, lower[start:end], axis=0, out=limit, mode="clip")
        np.greater(rise, limit, out=mask[start:end])
    return mask
