"""Load TensorRT engines, store their compiled kernels, and run them by tensor names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.files import read_checked, write_checked
from yolact_ros.runtime.backends.tensorrt.library import TensorRt, shared_logger

LOG = logging.getLogger(__name__)
SUFFIX = ".kernels"


@dataclass(frozen=True)
class EngineTensor:
    """Holds shape and type of an input or output."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Return its size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class TensorRtEngine:
    """Represents a deserialised engine.

    Attributes:
        inputs, outputs: tensors by name.
        memory: bytes on the GPU that a run needs besides its tensors; engines that run one after
            another can share them.
    """

    def __init__(
        self, library: TensorRt, content: bytes, *, graph: str, path: Path | None = None
    ) -> None:
        """Deserialise an engine, on the current GPU of the calling thread.

        An engine is code for the GPU: only bytes that `files.read_engine` has checked may come
        here.

        Args:
            library: TensorRT or TensorRT-RTX.
            content: the engine.
            graph: the graph's name, for messages.
            path: the engine's file, beside which TensorRT-RTX keeps its kernels; None: nowhere.

        Raises:
            BackendError: TensorRT cannot start, or rejects the engine.
        """
        trt = library.module
        self._graph = graph
        self._log = shared_logger(trt)
        try:
            self._runtime = trt.Runtime(self._log)
        except (TypeError, RuntimeError) as error:  # the bindings have no exception of their own
            raise BackendError(
                f"{library.label} cannot start: {self._reason(str(error))}. Check that the driver "
                "is recent enough for this version of TensorRT."
            ) from error
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise BackendError(
                f"{library.label} rejects the engine of graph {graph!r}: {self._reason()}. Build "
                "it again: yolact engine BUNDLE --rebuild"
            )
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._kernels: KernelCache | None = None
        if library.ahead_of_time and path is not None:
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            self._kernels = KernelCache(config, path)
            self._context = self._engine.create_execution_context(config)
        else:
            self._context = self._engine.create_execution_context(strategy)
        if self._context is None:
            raise BackendError(
                f"The engine of graph {graph!r} cannot be prepared: {self._reason()}"
            )
        self.inputs: dict[str, EngineTensor] = {}
        self.outputs: dict[str, EngineTensor] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            tensor = EngineTensor(
                tuple(self._engine.get_tensor_shape(name)),
                np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))),
            )
            is_input = self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (self.inputs if is_input else self.outputs)[name] = tensor
        self.memory = int(self._engine.device_memory_size_v2)

    def bind(self, addresses: Mapping[str, int], workspace: int) -> None:
        """Set the addresses of tensors and working memory on the GPU.

        Args:
            addresses: of every input and output.
            workspace: address of at least `memory` bytes.

        Raises:
            BackendError: TensorRT rejects an address.
        """
        self._context.set_device_memory(workspace, self.memory)
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise BackendError(
                    f"TensorRT rejects the address of {name!r} in the graph {self._graph!r}: "
                    f"{self._reason()}"
                )

    def enqueue(self, stream: int) -> None:
        """Enqueue a run in a CUDA stream.

        Raises:
            BackendError: TensorRT rejects it.
        """
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"TensorRT failed in the graph {self._graph!r}: {self._reason()}")

    def save_kernels(self) -> None:
        """Store the kernels that the first run compiled, for the next start of the process."""
        if self._kernels is not None:
            self._kernels.save()

    def _reason(self, unknown: str = "it gives no reason") -> str:
        return str((self._log.take_errors() or [unknown])[-1])


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
        self._stored = read_checked(self._path)
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
            write_checked(self._path, content)
        except OSError as error:
            LOG.info("%s cannot be written, so every start compiles again: %s", self._path, error)
