"""Use the part of CUDA that a backend needs: memory, one stream, copies, captured work."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.driver import INTEGRATED, Address, Driver, Handle

# Of cuda.h.
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_BLOCKING_SYNC = 4  # CU_CTX_SCHED_BLOCKING_SYNC
_DEVICE_MAP = 2  # CU_MEMHOSTALLOC_DEVICEMAP
_CAN_MAP = 19  # CUdevice_attribute

# With this many cores or fewer, a thread that waits for the GPU sleeps instead of spinning.
FEW_CORES = 6


class Cuda:
    """Owns one GPU and one stream, which `close` frees."""

    def __init__(self, device: int = 0) -> None:
        """Open a GPU by its index, and make it current in the calling thread.

        TensorRT, which uses the CUDA runtime, then works on the same GPU.

        Raises:
            BackendError: the driver or the GPU is missing.
        """
        self._driver = Driver()
        self._device = self._driver.device(device)
        if len(os.sched_getaffinity(0)) <= FEW_CORES:
            # Refused if something in this process has set up the context already; then it spins.
            with contextlib.suppress(BackendError):
                self._call("cuDevicePrimaryCtxSetFlags_v2", self._device, _BLOCKING_SYNC)
        self._context = self._driver.value("cuDevicePrimaryCtxRetain", Handle, self._device)
        self._sizes: dict[int, int] = {}
        self._pinned: list[int] = []
        self._captured: list[int] = []
        self._events: list[int] = []
        self._stream: int | None = None
        try:
            self.use()
            self._stream = self._driver.value("cuStreamCreate", Handle, _NON_BLOCKING)
        except BaseException:
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)
            raise

    @property
    def stream(self) -> int:
        """Return the stream's handle."""
        if self._stream is None:
            raise BackendError("The GPU was closed.")
        return self._stream

    @property
    def allocated(self) -> int:
        """Return the number of bytes that were allocated on the GPU through this object."""
        return sum(self._sizes.values())

    def use(self) -> None:
        """Make the GPU current in the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes on the GPU, and return their address."""
        address = int(self._driver.value("cuMemAlloc_v2", Address, max(size, 1)))
        self._sizes[address] = size
        return address

    @property
    def shares_memory(self) -> bool:
        """Return whether the GPU uses the memory of the CPU, and can write into host arrays."""
        return all(
            self._driver.value("cuDeviceGetAttribute", ctypes.c_int, attribute, self._device)
            for attribute in (INTEGRATED, _CAN_MAP)
        )

    def device_address(self, array: np.ndarray) -> int:
        """Return the address that the GPU uses for a pinned array."""
        source = array.ctypes.data
        return int(self._driver.value("cuMemHostGetDevicePointer_v2", Address, source, 0))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return a host array in pinned memory, valid until `close`."""
        count = int(np.prod(shape))
        size = max(count * dtype.itemsize, 1)
        address = int(self._driver.value("cuMemHostAlloc", Handle, size, _DEVICE_MAP))
        self._pinned.append(address)
        memory = (ctypes.c_uint8 * size).from_address(address)
        # A ctypes array has the buffer protocol, but its stub does not declare it.
        return np.frombuffer(memory, dtype, count).reshape(shape)  # type: ignore[call-overload]

    def upload(self, address: int, array: np.ndarray) -> None:
        """Enqueue a copy of a pinned array to the GPU."""
        source = array.ctypes.data
        self._call("cuMemcpyHtoDAsync_v2", address, source, array.nbytes, self.stream)

    def download(self, array: np.ndarray, address: int) -> None:
        """Enqueue a copy from the GPU to a pinned array."""
        target = array.ctypes.data
        self._call("cuMemcpyDtoHAsync_v2", target, address, array.nbytes, self.stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy between two addresses on the GPU."""
        self._call("cuMemcpyDtoDAsync_v2", target, source, size, self.stream)

    def event(self) -> int:
        """Return an event for `record`, valid until `close`."""
        self._events.append(int(self._driver.value("cuEventCreate", Handle, 0)))
        return self._events[-1]

    def record(self, event: int) -> None:
        """Enqueue an event, which records when the work before it is done."""
        self._call("cuEventRecord", event, self.stream)

    def seconds_between(self, first: int, second: int) -> float:
        """Return the time between two events, both of which the stream has passed."""
        elapsed_ms = self._driver.value("cuEventElapsedTime", ctypes.c_float, first, second)
        return float(elapsed_ms) * 1e-3

    def synchronise(self) -> None:
        """Wait until all work in the stream is done."""
        self._call("cuStreamSynchronize", self.stream)

    def capture(self, work: Callable[[], None]) -> int:
        """Capture what `work` enqueues as a graph, without running it.

        Returns:
            The graph's handle, for `replay`.

        Raises:
            BackendError: something in it cannot be captured.
        """
        self._call("cuStreamBeginCapture_v2", self.stream, _THREAD_LOCAL)
        try:
            work()
        except BaseException:
            with contextlib.suppress(BackendError):  # its own error adds nothing
                self._call("cuGraphDestroy", self._end_capture())
            raise
        graph = self._end_capture()
        try:
            captured = int(self._driver.value("cuGraphInstantiateWithFlags", Handle, graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)
        self._captured.append(captured)
        return captured

    def replay(self, captured: int) -> None:
        """Enqueue a captured graph."""
        self._call("cuGraphLaunch", captured, self.stream)

    def close(self) -> None:
        """Wait for queued work, then free memory and stream; a second call does nothing.

        Every step is tried even if another one fails.

        Raises:
            BackendError: the first error.
        """
        if self._stream is None:
            return
        steps = [("cuCtxSetCurrent", self._context), ("cuStreamSynchronize", self._stream)]
        steps += [("cuGraphExecDestroy", captured) for captured in self._captured]
        steps += [("cuEventDestroy_v2", event) for event in self._events]
        steps += [("cuMemFree_v2", address) for address in self._sizes]
        steps += [("cuMemFreeHost", address) for address in self._pinned]
        steps += [("cuStreamDestroy_v2", self._stream)]
        steps += [("cuDevicePrimaryCtxRelease_v2", self._device)]
        self._captured, self._events, self._pinned = [], [], []
        self._sizes, self._stream = {}, None
        errors = []
        for name, argument in steps:
            try:
                self._call(name, argument)
            except BackendError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _end_capture(self) -> int | None:
        graph = Handle()
        self._call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        return graph.value

    def _call(self, name: str, *arguments: Any) -> None:
        self._driver.call(name, *arguments)


@contextlib.contextmanager
def current_gpu(index: int | None) -> Iterator[None]:
    """Make a GPU of this machine current in the calling thread; None changes nothing.

    Each thread has its own current GPU, which is GPU 0 at first.
    """
    if index is None:
        yield
        return
    cuda = Cuda(index)
    try:
        yield
    finally:
        cuda.close()
