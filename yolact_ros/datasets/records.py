"""Store many small Python objects in one block of memory that worker processes share.

A data set as large as COCO has millions of Python objects. Pickling would copy them to a spawned
worker, and reference counts alone would copy the pages of a forked one.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Iterable
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np


class SharedRecords:
    """Stores a read-only sequence of objects in memory that processes map when unpickling it."""

    def __init__(self, objects: Iterable[Any]) -> None:
        """Write `objects` one after another, so that an iterator never holds all of them."""
        lengths = []
        self._descriptor = os.memfd_create("yolact_records")
        with open(self._descriptor, "wb", closefd=False) as file:
            for item in objects:
                lengths.append(file.write(pickle.dumps(item, pickle.HIGHEST_PROTOCOL)))
            file.write(b"\0")  # an empty file cannot be mapped
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._memory = mmap.mmap(self._descriptor, 0, prot=mmap.PROT_READ)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        """Return a new copy of object `index`."""
        if not 0 <= index < len(self._ends):
            raise IndexError(index)
        start = int(self._ends[index - 1]) if index else 0
        with memoryview(self._memory) as view, view[start : int(self._ends[index])] as part:
            return pickle.loads(part)

    def __getstate__(self) -> dict[str, Any]:
        return {"descriptor": DupFd(self._descriptor), "ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._descriptor = state["descriptor"].detach()
        self._ends = state["ends"]
        self._memory = mmap.mmap(self._descriptor, 0, prot=mmap.PROT_READ)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
