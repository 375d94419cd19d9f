"""One TensorRT engine in memory: its tensors by name, and a context that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.library import TensorRt, make_logger


@dataclass(frozen=True)
class EngineTensor:
    """Shape and type of an input or output.

    Attributes:
        size: in bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class TensorRtEngine:
    """A deserialised engine.

    Attributes:
        inputs, outputs: tensors by name.
        memory: bytes on the GPU that a run needs besides its tensors.
    """

    def __init__(self, library: TensorRt, content: bytes, *, graph: str) -> None:
        """Deserialise an engine.

        An engine is code for the GPU: only bytes that `runtime.engine_file` has checked may come
        here.

        Args:
            library: TensorRT or TensorRT-RTX.
            content: the engine.
            graph: the graph's name, for messages.

        Raises:
            BackendError: TensorRT refuses it.
        """
        module = library.module
        self._log = make_logger(module)
        self._runtime = module.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise BackendError(
                f"{library.label} refuses the engine of graph {graph!r}: "
                f"{_words(self._log)}. Build it anew: yolact engine BUNDLE"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendError(
                f"The engine of graph {graph!r} cannot be prepared: {_words(self._log)}"
            )
        self._graph = graph
        self.inputs: dict[str, EngineTensor] = {}
        self.outputs: dict[str, EngineTensor] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            tensor = EngineTensor(
                tuple(self._engine.get_tensor_shape(name)),
                np.dtype(module.nptype(self._engine.get_tensor_dtype(name))),
            )
            is_input = self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
            (self.inputs if is_input else self.outputs)[name] = tensor
        size = getattr(self._engine, "device_memory_size_v2", None)
        self.memory = int(self._engine.device_memory_size if size is None else size)

    def enqueue(self, addresses: Mapping[str, int], stream: int) -> None:
        """Put a run into a CUDA stream.

        Args:
            addresses: of every input and output on the GPU.
            stream: the stream's handle.

        Raises:
            BackendError: TensorRT refuses.
        """
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(stream):
            raise BackendError(
                f"TensorRT failed in the graph {self._graph!r}: {_words(self._log)}"
            )


def _words(log: Any) -> str:
    """What TensorRT said last."""
    return str(log.errors[-1]) if log.errors else "it gives no reason"
