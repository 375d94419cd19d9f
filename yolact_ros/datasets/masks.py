"""Convert COCO masks: polygons, run lengths, compressed run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle_masks

DIGIT_BITS = 5
# pycocotools allocates by the length of an outline, with 32-bit arithmetic that it does not check.
FAR = 10  # image sides by which a corner may be outside
LONGEST_OUTLINE = 1e6  # pixels
MAX_AREA = 2**30  # pixels of an image; pycocotools stores run lengths in 32 bits
NO_PIXEL = "whose mask has no pixel"
FLAT = 2.0  # area in pixels below which a polygon may not cover a single pixel


class Shape(NamedTuple):
    """Holds a usable segmentation.

    Attributes:
        segmentation: polygons as lists of numbers, or RLE.
        extent: x1 y1 x2 y2 in pixels, not clipped to the image.
        broken: number of dropped polygons.
    """

    segmentation: Any
    extent: tuple[float, float, float, float]
    broken: int = 0


def read_segmentation(segmentation: Any, size: tuple[int, int]) -> Shape | str:
    """Check the `segmentation` of an annotation.

    A polygon without its outer list, and one given as a list of x y pairs, are accepted.

    Args:
        segmentation: value from the annotation file.
        size: (height, width) of the image.

    Returns:
        The shape, or why it does not yield a mask.
    """
    if isinstance(segmentation, Mapping):
        return _read_rle(segmentation, size)
    if not isinstance(segmentation, list):
        return "without a segmentation"
    parts = _nest(segmentation)
    outlines = [_corners(part) for part in parts]
    polygons = [polygon for polygon in outlines if polygon is not None]
    if not polygons:
        return "without a usable polygon"
    corners = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
    low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    side = max(size)
    if min(low) < -FAR * side or max(high) > (FAR + 1) * side:
        return "with a corner far outside the image"
    longest = max(high[0] - low[0], high[1] - low[1])  # of an edge
    if len(corners) * longest > LONGEST_OUTLINE:
        if sum(map(_outline, polygons)) > LONGEST_OUTLINE:
            return f"with an outline of more than {LONGEST_OUTLINE:.0f} pixels"
    if min(high) <= 0 or low[0] >= size[1] or low[1] >= size[0]:
        return NO_PIXEL
    kept = parts
    if len(polygons) < len(parts):
        kept = [part for part, outline in zip(parts, outlines, strict=True) if outline is not None]
    leaves = min(low) < 0 or high[0] > size[1] or high[1] > size[0]
    if leaves or sum(map(_area, polygons)) < FLAT:
        if not rle_masks.area(segmentation_rle(kept, *size)):
            return NO_PIXEL
    return Shape(kept, (*low, *high), len(parts) - len(polygons))


def segmentation_fault(segmentation: Any, size: tuple[int, int]) -> str | None:
    """Return why a `segmentation` does not yield a mask; None if it does."""
    shape = read_segmentation(segmentation, size)
    return shape if isinstance(shape, str) else None


def _nest(segmentation: list[Any]) -> list[Any]:
    """Return a list of polygons, even for one that lacks its outer list or has x y pairs."""
    if len(segmentation) >= 6 and all(isinstance(v, (int, float)) for v in segmentation):
        return [segmentation]
    pairs = len(segmentation) >= 3 and all(
        isinstance(pair, list) and len(pair) == 2 for pair in segmentation
    )
    if pairs and all(isinstance(v, (int, float)) for pair in segmentation for v in pair):
        return [[value for pair in segmentation for value in pair]]
    return segmentation


def _corners(points: Any) -> np.ndarray | None:
    """Return x1 y1 x2 y2 ... as (N, 2) float64; None without three finite corners or more."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return None
    try:
        values = _array(points)
    except (ValueError, OverflowError):
        return None
    if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        return None
    return values.astype(np.float64).reshape(-1, 2)


def _array(values: list[Any]) -> np.ndarray:
    """Return a list as an array; of objects if it holds lists, where NumPy versions differ."""
    return np.asarray(values, object if any(isinstance(v, list) for v in values) else None)


def is_polygon(points: Any) -> bool:
    """Return whether `points` is x1 y1 x2 y2 ... with three finite corners or more."""
    return _corners(points) is not None


def _outline(corners: np.ndarray) -> float:
    """Return the length of a polygon's outline, by the longer side of each edge."""
    edges = np.abs(np.diff(corners, axis=0, append=corners[:1]))
    return float(edges.max(axis=1).sum())


def _area(corners: np.ndarray) -> float:
    """Return the area of a polygon, by the shoelace formula."""
    x, y = corners[:, 0] - corners[0, 0], corners[:, 1] - corners[0, 1]
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2  # the last term is zero


def _read_rle(segmentation: Mapping[str, Any], size: tuple[int, int]) -> Shape | str:
    """Check run lengths: if there are too few, pycocotools fills up with uninitialised memory."""
    if "counts" not in segmentation:
        return "without a segmentation"
    own_size = segmentation.get("size")
    if not isinstance(own_size, (list, tuple)) or len(own_size) != 2:
        return "with a mask without a size"
    if tuple(own_size) != tuple(size):
        return "with a mask of a different size than the image"
    try:
        runs = run_lengths(segmentation["counts"])
        complete = bool((runs >= 0).all()) and int(runs.sum()) == size[0] * size[1]
    except (TypeError, ValueError, OverflowError):
        complete = False
    if not complete or runs.max() > MAX_AREA:
        return "with a corrupt run-length mask"
    x, y, width, height = rle_masks.toBbox(segmentation_rle(segmentation, *size)).tolist()
    if not runs[1::2].sum():
        return NO_PIXEL
    return Shape(segmentation, (x, y, x + width, y + height))


def run_lengths(counts: list[int] | str | bytes) -> np.ndarray:
    """Return the alternating run lengths of zeros and ones, from plain or compressed counts.

    Returns:
        (R,) int64.

    Raises:
        ValueError: the string ends within a number, or has an invalid character
            (cocodataset/cocoapi `common/maskApi.c::rleFrString`).
    """
    if isinstance(counts, list):
        values = _array(counts)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise ValueError("The counts are not a list of whole numbers.")
        return values.astype(np.int64)
    if not isinstance(counts, (str, bytes)):
        raise TypeError("The counts are neither a list nor text.")
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    if not len(digits):
        return digits
    last = (digits & 32) == 0
    if digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise ValueError("The counts are not COCO's run lengths.")
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    lengths = np.diff(np.concatenate([starts, [len(digits)]]))
    if lengths.max() > 12:
        raise ValueError("The counts contain a number of more than 60 bits.")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((digits & 31) << (DIGIT_BITS * place), starts)
    negative = (digits[last] & 16) != 0
    numbers -= np.where(negative, np.int64(1) << (DIGIT_BITS * lengths), 0)
    # From the fourth number on, each is the difference from the run two before.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def segmentation_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Convert polygons or RLE of an annotation to compressed RLE, as required by pycocotools.

    Args:
        segmentation: one that `segmentation_fault` accepts.
        height: image height in pixels.
        width: image width in pixels.
    """
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if is_polygon(polygon)]
        return rle_masks.merge(rle_masks.frPyObjects(polygons, height, width))
    if isinstance(segmentation["counts"], list):
        return rle_masks.frPyObjects(segmentation, height, width)
    counts = segmentation["counts"]
    return {
        "size": [height, width],
        "counts": counts.encode() if isinstance(counts, str) else counts,
    }


class MaskCrops(Sequence[np.ndarray]):
    """Holds N masks of one image, each stored only inside its tight box.

    Indexing returns a full (H, W) uint8 mask, `np.asarray` all of them as (N, H, W).

    Attributes:
        size: (height, width) of the image.
        corners: (N, 2) int64 x y of each crop's first pixel.
        crops: (h, w) uint8, 0 or 1.
    """

    def __init__(
        self, size: tuple[int, int], corners: Sequence[tuple[int, int]], crops: list[np.ndarray]
    ) -> None:
        self.size = size
        self.corners = np.asarray(corners, np.int64).reshape(-1, 2)
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: Any) -> Any:
        """Return mask `index`; a boolean array or list of indices returns (N, H, W)."""
        if isinstance(index, (int, np.integer)):
            mask = np.zeros(self.size, np.uint8)
            (x, y), crop = self.corners[index], self.crops[index]
            mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
            return mask
        chosen = np.arange(len(self))[index].tolist()
        return np.asarray(
            MaskCrops(self.size, self.corners[chosen], [self.crops[i] for i in chosen])
        )

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        masks = np.zeros((len(self), *self.size), np.uint8)
        for mask, (x, y), crop in zip(masks, self.corners, self.crops, strict=True):
            mask[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
        return masks if dtype is None else masks.astype(dtype)


def crop_mask(segmentation: Any, size: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
    """Rasterise a segmentation inside its tight box.

    The run lengths are those of pycocotools for the whole image, so the pixels equal those of
    its mask; only the columns of the box are ever filled.

    Args:
        segmentation: one that `read_segmentation` accepts.
        size: (height, width) of the image.

    Returns:
        x y of the box's first pixel, and (h, w) uint8; h and w are 0 for an empty mask.
    """
    height = size[0]
    rle = segmentation_rle(segmentation, *size)
    x, y, w, h = (int(value) for value in rle_masks.toBbox(rle))
    ends = np.cumsum(run_lengths(rle["counts"]))
    edges = np.clip(ends, x * height, (x + w) * height) - x * height
    lengths = np.diff(edges, prepend=0)
    values = (np.arange(len(lengths)) % 2).astype(np.uint8)
    columns = np.repeat(values, lengths).reshape(w, height)
    return (x, y), np.ascontiguousarray(columns[:, y : y + h].T)
