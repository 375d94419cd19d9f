"""Encode masks as COCO's compressed run lengths, without pycocotools.

Format: alternating runs of zeros and ones in column-major order, starting with zeros; from the
fourth run on, the difference from the run two before; each as a base-32 number, lowest digit
first, in characters from `0` on (cocodataset/cocoapi `common/maskApi.c::rleToString`).
"""

from __future__ import annotations

import numpy as np

DIGIT_BITS = 5
MAX_DIGITS = 7  # of a 32-bit number


def encode_rle(
    mask: np.ndarray, region: np.ndarray, image_size: tuple[int, int]
) -> dict[str, object]:
    """Encode a cropped mask.

    Args:
        mask: (h, w) bool.
        region: x1 y1 x2 y2, half-open, in pixels of the image: the region of the crop.
        image_size: (height, width) of the image.

    Returns:
        `{"size": [height, width], "counts": str}`, as in pycocotools and COCO's JSON files.
    """
    runs = mask_runs(mask, region, image_size)
    return {"size": [int(n) for n in image_size], "counts": compress_runs(runs)}


def mask_runs(mask: np.ndarray, region: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return the lengths of the runs of zeros and ones, column-major over the whole image.

    Returns:
        (R,) int64; the first counts zeros and may be 0, the others are positive.
    """
    height, width = image_size
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = mask.T
    steps = np.diff(columns, axis=1)
    first = (int(region[0]) + np.arange(mask.shape[1])) * height + int(region[1])
    column, row = np.nonzero(steps == 1)
    starts = first[column] + row
    column, row = np.nonzero(steps == -1)
    ends = first[column] + row
    # A run that reaches the bottom of a column may continue at the top of the next.
    apart = ends[:-1] != starts[1:]
    starts = np.concatenate([starts[:1], starts[1:][apart]])
    ends = np.concatenate([ends[:-1][apart], ends[-1:]])
    borders = np.stack([starts, ends], axis=1).reshape(-1)
    runs = np.diff(np.concatenate([[0], borders, [height * width]]))
    return runs if len(runs) == 1 or runs[-1] else runs[:-1]


def compress_runs(runs: np.ndarray) -> str:
    """Encode (R,) run lengths as the string that COCO uses."""
    numbers = runs.astype(np.int64)
    numbers[3:] -= runs[1:-2]
    digits = np.zeros((len(numbers), MAX_DIGITS), np.uint8)
    used = np.zeros((len(numbers), MAX_DIGITS), bool)
    open_numbers = np.ones(len(numbers), bool)
    for place in range(MAX_DIGITS):
        digit = numbers & 31
        numbers = numbers >> DIGIT_BITS
        # The top bit of the last digit is the sign: the rest must be all zeros or all ones.
        more = np.where(digit & 16, numbers != -1, numbers != 0)
        digits[:, place] = digit + np.where(more, 32, 0) + ord("0")
        used[:, place] = open_numbers
        open_numbers = open_numbers & more
    return digits[used].tobytes().decode("ascii")
