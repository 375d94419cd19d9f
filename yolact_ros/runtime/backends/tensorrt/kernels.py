"""Store the kernels that TensorRT-RTX compiles when an engine starts, for the next start.

They are code for the GPU, like the engine. The hash detects damage but is not a signature.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from yolact_ros.files import replace_file

LOG = logging.getLogger(__name__)

SUFFIX = ".kernels"
_DIGEST_BYTES = 32  # of SHA-256, which begins the file


class KernelCache:
    """Stores the compiled kernels of one engine in a file beside it."""

    def __init__(self, runtime_config: Any, engine: Path) -> None:
        """Make an execution context use the stored kernels, if there are any.

        Args:
            runtime_config: an `IRuntimeConfig` of TensorRT-RTX.
            engine: the engine's file.
        """
        self._path = engine.with_name(engine.name + SUFFIX)
        self._cache = runtime_config.create_runtime_cache()
        self._stored = _read(self._path)
        # The library rejects kernels of another GPU, driver or version, and recompiles them.
        if self._stored and not self._cache.deserialize(self._stored):
            LOG.info("%s was made by another GPU, driver or library version.", self._path)
        runtime_config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the kernels if more were compiled and the folder is writable."""
        content = bytes(self._cache.serialize())
        if content == self._stored:
            return
        try:
            replace_file(self._path, hashlib.sha256(content).digest() + content)
        except OSError as error:
            LOG.info("%s cannot be written, so every start compiles again: %s", self._path, error)


def _read(path: Path) -> bytes:
    """Return the content of a file of kernels; empty if there is none, or it is damaged."""
    try:
        stored = path.read_bytes()
    except OSError:
        return b""
    digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else b""
