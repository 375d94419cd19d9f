"""Upsample soft masks to the source image and binarize them.

The masks equal the reference's, which interpolates every pixel bilinearly (dbolya/yolact
`layers/output_utils.py::postprocess`). Here only the pixels of an edge are interpolated: where
four neighbouring prototype cells are all above or all below the threshold, so are the pixels
between them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.runtime.masks import SoftMasks, consecutive
from yolact_ros.runtime.preprocess import Placement

# Cells this close to the threshold decide nothing: interpolation takes ten float32 operations on
# numbers up to 1, each of which rounds by at most 6e-8.
MARGIN = 1e-5
# A cell counts as one of these, or as 0 below the threshold; the sum of four tells them apart.
ABOVE, NEAR = 17, 16
BLOCK = 8192  # quads interpolated together; limits the memory if every quad is at an edge


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
    if not soft.values:
        return np.zeros((0, 4), np.int32), ()
    rows, columns = (
        axis_gaps(cells, pixels, extent, shift)
        for cells, pixels, extent, shift in zip(
            soft.size, placement.image_size, placement.extent, placement.shift, strict=True
        )
    )
    # Between cells below the threshold no pixel can exceed it, so the other cells bound the mask.
    bounds = np.array([_bounds(values > threshold) for values in soft.values], np.int64)
    x1, y1, x2, y2 = (soft.cells[:, [0, 1, 0, 1]] + bounds).T
    regions = np.stack(
        [columns.starts[x1], rows.starts[y1], columns.starts[x2 + 1], rows.starts[y2 + 1]], axis=1
    )
    regions[bounds[:, 2] == 0] = 0
    left, top, right, bottom = regions.T

    heights, widths = y2 - y1 + 2, x2 - x1 + 2
    cells = _cells(soft, bounds, heights, widths)

    # A quad is the square between four cells, and has the index of its upper left cell.
    owners = np.repeat(np.arange(len(widths)), heights * widths)
    below = np.repeat(widths, heights * widths)
    below += np.arange(len(cells))
    quads = (cells > threshold + MARGIN).view(np.uint8)
    quads += np.uint8(NEAR) * (cells >= threshold - MARGIN).view(np.uint8)
    quads[:-1] += quads[1:]
    quads += quads.take(below, mode="clip")

    # Onsets (see `_onsets`) per column of pixels and gap of rows, transposed for speed.
    kind = rows.within.dtype.type
    unset = _unset(kind)
    depths = heights - 1
    onsets = np.empty(((right - left) * depths).sum(), kind)
    strips = consecutive(onsets, right - left, depths)
    tiles = consecutive((quads != 4 * ABOVE) * unset, heights, widths)
    spans = zip(strips, tiles, x1.tolist(), left.tolist(), right.tolist(), strict=True)
    for strip, tile, x, a, b in spans:
        tile[:-1, :-1].T.take(columns.gaps[a:b] - x, axis=0, out=strip, mode="clip")

    edges = np.flatnonzero((quads > 0) & (quads < 4 * ABOVE))
    owner = owners[edges]
    row, column = np.divmod(edges - _begins(heights * widths)[owner], widths[owner])
    used = (row < depths[owner]) & (column < widths[owner] - 1) & (bounds[owner, 2] > 0)
    row_gap, column_gap = row + y1[owner], column + x1[owner]
    used &= rows.counts.take(row_gap, mode="clip") > 0
    used &= columns.counts.take(column_gap, mode="clip") > 0
    target = (_begins((right - left) * depths) - left * depths)[owner] + row
    chosen = np.flatnonzero(used)
    for block in np.split(chosen, range(BLOCK, len(chosen), BLOCK)):
        quad, across = edges[block], column_gap[block]
        lower = below[quad]
        corners = cells.take([quad, quad + 1, lower, lower + 1])
        weights = columns.weights.take(across, axis=1)
        fractions = rows.weights.take(row_gap[block], axis=1)
        index = columns.pixels.take(across, axis=1)
        index *= depths[owner[block]]
        index += target[block]
        found = _onsets(corners, weights, fractions, threshold, kind)
        onsets[index.ravel()] = found.ravel()

    masks = []
    for strip, y, a, b in zip(strips, y1.tolist(), top.tolist(), bottom.tolist(), strict=True):
        onset = cv2.transpose(strip) if strip.size else strip.T
        pixels = onset.take(rows.gaps[a:b] - y, axis=0, mode="clip")
        pixels += rows.within[a:b, None]
        masks.append(pixels < unset)
    return regions.astype(np.int32), tuple(masks)


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return x1 y1 x2 y2, half-open, around the set pixels of (h, w) bool, or zeros."""
    if not mask.size:
        return 0, 0, 0, 0
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width, y + height


def _cells(
    soft: SoftMasks, bounds: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> np.ndarray:
    """Return the cells within the bounds and one ring around them, mask after mask, float32."""
    cells = np.zeros((heights * widths).sum(), np.float32)  # masks are zero beyond the crop
    tiles = consecutive(cells, heights, widths)
    for tile, values, (x1, y1, x2, y2) in zip(tiles, soft.values, bounds.tolist(), strict=True):
        x, y = min(x1, 1), min(y1, 1)
        part = values[y1 - y : y2 + 1, x1 - x : x2 + 1]
        tile[1 - y : 1 - y + part.shape[0], 1 - x : 1 - x + part.shape[1]] = part
    return cells


def _begins(sizes: np.ndarray) -> np.ndarray:
    """Return where each of consecutive pieces begins."""
    return np.cumsum(sizes) - sizes


def _unset(kind: type[np.unsignedinteger]) -> np.unsignedinteger:
    """Return the onset of a column without set pixels."""
    return kind(np.iinfo(kind).max // 2 + 1)


def _onsets(
    corners: np.ndarray,
    weights: np.ndarray,
    fractions: np.ndarray,
    threshold: float,
    kind: type[np.unsignedinteger],
) -> np.ndarray:
    """Interpolate quads, and encode where the mask starts or ends in each column of pixels.

    From one row of cells to the next, a column only rises or only falls, also after rounding. So
    its set pixels are its last ones or its first ones, and an onset says which: pixel j is set if
    (onset + j) modulo 2^bits is in the lower half of the numbers.

    Args:
        corners: (4, n) float32 upper left, upper right, lower left and lower right cell.
        weights: (columns, n) float32 fraction of the right cells.
        fractions: (rows, n) float32 fraction of the lower cells, ascending.
        threshold: a pixel is set above this.
        kind: uint8 for fewer than 128 rows, else uint16.

    Returns:
        (columns, n) of this type.
    """
    upper_left, upper_right, lower_left, lower_right = corners
    upper = (upper_right - upper_left) * weights
    upper += upper_left
    step = (lower_right - lower_left) * weights
    step += lower_left
    step -= upper
    lacking = threshold - upper
    count = np.zeros(step.shape, kind)
    risen = np.empty_like(step)
    for fraction in fractions:
        np.multiply(step, fraction, out=risen)
        count += (risen > lacking).view(np.uint8)
    # The onset is `unset - count` where the column falls, and `count - len(fractions)` where it
    # rises; np.where takes three times as long. The numbers wrap around.
    falls = (step < 0).astype(kind)
    sign = -falls
    count ^= sign
    count -= sign
    falls *= _unset(kind) + kind(len(fractions))
    count += falls
    count -= kind(len(fractions))
    return count


@dataclass(frozen=True, eq=False)
class AxisGaps:
    """Locates the pixels of one image axis between prototype cells.

    Gap g is between the cells g - 1 and g. Pixels before the centre of the first cell equal it:
    they are in gap 0, with weight 1. Those after the last centre are in the last gap, with weight
    0.

    Attributes:
        gaps: (pixels,) int64 gap of each pixel, ascending.
        within: (pixels,) number of each pixel within its gap, uint8 if all are below 127.
        starts: (cells + 2,) int64 first pixel of each gap, and the end of the last.
        counts: (cells + 1,) int64 pixels of each gap.
        pixels: (most, cells + 1) int64 pixels of each gap; the last is repeated.
        weights: (most, cells + 1) float32 fraction of the upper cell for each of them.
    """

    gaps: np.ndarray
    within: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=16)
def axis_gaps(cells: int, pixels: int, extent: float, shift: float) -> AxisGaps:
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
    positions = scale * centres - np.float32(0.5)
    before = positions < 0
    positions = np.clip(positions, 0, np.float32(cells - 1))
    lower = positions.astype(np.int64)
    gaps = np.where(before, 0, lower + 1)
    weights = np.where(before, np.float32(1), positions - lower.astype(np.float32))
    starts = np.searchsorted(gaps, np.arange(cells + 2))
    counts = np.diff(starts)
    most = counts.max()
    last = np.maximum(starts[1:] - 1, 0)
    table = np.minimum(starts[:-1] + np.arange(most)[:, None], last)
    within = (np.arange(pixels) - starts[gaps]).astype(np.uint8 if most < 128 else np.uint16)
    return AxisGaps(gaps, within, starts, counts, table, weights[table])
