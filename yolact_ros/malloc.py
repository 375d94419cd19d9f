"""Make the C library reuse freed memory instead of returning it to the system."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Stop glibc from returning freed blocks to the system; do nothing elsewhere.

    By default, every large block is mapped again each time it is needed, and each of its pages
    faults. For activations this costs up to a third of a training step on the CPU of a virtual
    machine; for clouds of large images, more than computing them.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)  # never
    mallopt(M_TOP_PAD, 64 * 2**20)
