"""Encode masks for `Instance` messages (msg/Instance.msg)."""

from __future__ import annotations

import numpy as np

# Values of `Instance.mask_encoding`.
MASK_NONE = 0
MASK_BITS = 1
MASK_MONO8 = 2
MASK_RLE = 3

# Value of the parameter `mask_encoding` -> value of the message field.
MASK_ENCODINGS = {"bits": MASK_BITS, "mono8": MASK_MONO8, "rle": MASK_RLE, "none": MASK_NONE}


def encode_mask(mask: np.ndarray, encoding: int) -> bytes:
    """Encode a mask as the bytes of `Instance.mask`.

    Args:
        mask: (h, w) bool, only the region of interest; h or w may be 0.
        encoding: one of the `MASK_` values.

    Raises:
        ValueError: the encoding is unknown.
    """
    if encoding == MASK_NONE:
        return b""
    if encoding == MASK_BITS:
        return np.packbits(mask, axis=1).tobytes()
    if encoding == MASK_MONO8:
        return np.where(mask, np.uint8(255), np.uint8(0)).tobytes()
    if encoding == MASK_RLE:
        return _run_lengths(mask.ravel()).tobytes()
    raise ValueError(f"unknown mask encoding {encoding}")


def _run_lengths(pixels: np.ndarray) -> np.ndarray:
    """Encode (n,) bool as little-endian uint32 run lengths; the first run counts zeros."""
    if pixels.size == 0:
        return np.empty(0, "<u4")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(changes, prepend=0, append=pixels.size)
    if pixels[0]:
        runs = np.concatenate([[0], runs])
    return runs.astype("<u4")
