"""The little of CUDA that a backend needs: memory, one stream, copies, captured work.

Over cuda-python (`cuda.bindings.runtime`; `cuda.cudart` before version 12.6). Every failure is a
`BackendError` with CUDA's own words.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError

INSTALL = (
    "CUDA for Python is not installed; install the version of your CUDA with: "
    "pip install 'cuda-python==12.*' (or 13.*)"
)


class Cuda:
    """One GPU and one stream; whoever makes it frees it with `close`.

    Attributes:
        allocated: bytes on the GPU that were taken through it.
    """

    def __init__(self, device: int = 0) -> None:
        """Take the GPU of that index.

        Raises:
            BackendError: CUDA for Python, the driver or the GPU is not there.
        """
        self._api = _import_api()
        self._device = device
        count = self._call("cudaGetDeviceCount")
        if not 0 <= device < count:
            raise BackendError(f"There is no GPU {device}; CUDA shows {count}, from 0 on.")
        self.use()
        self._stream = self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking)
        self._sizes: dict[int, int] = {}
        self._pinned: list[int] = []
        self._captured: list[Any] = []

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream)

    @property
    def allocated(self) -> int:
        """Bytes on the GPU that were taken through this object."""
        return sum(self._sizes.values())

    def use(self) -> None:
        """Make the GPU the one of the calling thread."""
        self._call("cudaSetDevice", self._device)

    def allocate(self, size: int) -> int:
        """Take `size` bytes on the GPU; returns their address."""
        address = int(self._call("cudaMalloc", max(size, 1)))
        self._sizes[address] = size
        return address

    def free(self, address: int) -> None:
        """Give bytes on the GPU back; after `close` they are free already."""
        if self._sizes.pop(address, None) is not None:
            self._call("cudaFree", address)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """A host array that the GPU can copy from and to by itself; it lives until `close`."""
        count = int(np.prod(shape))
        size = max(count * dtype.itemsize, 1)
        address = int(self._call("cudaHostAlloc", size, self._api.cudaHostAllocDefault))
        self._pinned.append(address)
        memory = (ctypes.c_uint8 * size).from_address(address)
        # A ctypes array has the buffer protocol, which its stub does not say.
        return np.frombuffer(memory, dtype, count).reshape(shape)  # type: ignore[call-overload]

    def upload(self, address: int, array: np.ndarray) -> None:
        """Put a copy of a pinned array to the GPU into the stream."""
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def download(self, array: np.ndarray, address: int) -> None:
        """Put a copy from the GPU to a pinned array into the stream."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")

    def synchronise(self) -> None:
        """Wait until all work of the stream is done."""
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` puts into the stream, without doing it; `replay` does it.

        Raises:
            BackendError: something in it cannot be recorded.
        """
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            self._api.cudaStreamEndCapture(self._stream)  # its own error says nothing new
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        captured = self._call("cudaGraphInstantiateWithFlags", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._captured.append(captured)
        return captured

    def replay(self, captured: Any) -> None:
        """Put recorded work into the stream."""
        self._call("cudaGraphLaunch", captured, self._stream)

    def close(self) -> None:
        """Free the memory and the stream; calling it twice does no harm."""
        if self._stream is None:
            return
        self.use()
        for captured in self._captured:
            self._call("cudaGraphExecDestroy", captured)
        for address in list(self._sizes):
            self.free(address)
        for address in self._pinned:
            self._call("cudaFreeHost", address)
        self._call("cudaStreamDestroy", self._stream)
        self._captured, self._pinned, self._stream = [], [], None

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._api.cudaMemcpyKind, kind)
        self._call("cudaMemcpyAsync", target, source, size, direction, self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call CUDA; its result, or a tuple of several, without the error code."""
        error, *results = getattr(self._api, name)(*arguments)
        if int(error):
            _, words = self._api.cudaGetErrorString(error)
            raise BackendError(
                f"CUDA failed in {name} on GPU {self._device}: {words.decode()} "
                f"(error {int(error)})."
            )
        if not results:
            return None
        return results[0] if len(results) == 1 else tuple(results)


def _import_api() -> Any:
    try:
        from cuda.bindings import runtime

        return runtime
    except ImportError:
        pass
    try:
        from cuda import cudart
    except ImportError as error:
        raise BackendError(f"{INSTALL} ({error})") from error
    return cudart
