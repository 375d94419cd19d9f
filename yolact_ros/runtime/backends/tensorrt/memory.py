"""Measure how much memory a build takes, which decides whether it fits on a Jetson."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Iterator

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.cuda import current_gpu
from yolact_ros.runtime.backends.tensorrt.driver import Driver
from yolact_ros.runtime.backends.tensorrt.gpu import Gpu, available_memory

LOG = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.2


def free_memory(gpu: Gpu) -> int | None:
    """Return the free memory in bytes, or None if the system does not report it.

    That is the memory of the GPU, which must be current, or where the GPU shares the memory of the
    CPU, what programs can still get.

    Raises:
        BackendError: the driver fails.
    """
    if gpu.integrated:
        return available_memory()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    Driver().call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value


@contextlib.contextmanager
def logged_peak_memory(gpu: Gpu, what: str) -> Iterator[None]:
    """Log by how much the free memory fell at most while the body ran, by sampling.

    Other programs count too. Nothing is logged if the memory cannot be read or the body fails.

    Args:
        gpu: GPU of this machine.
        what: what the body does, e.g. `Building the engine of 'detect'`.
    """
    samples: list[int] = []
    finished = threading.Event()

    def sample() -> None:
        with contextlib.suppress(BackendError), current_gpu(gpu.index):
            while (free := free_memory(gpu)) is not None:
                samples.append(free)
                if finished.wait(SAMPLE_SECONDS):
                    return

    thread = threading.Thread(target=sample, name="build_memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
    if samples:
        peak = (samples[0] - min(samples)) >> 20
        LOG.info("%s took up to %d MiB; %d MiB were free before.", what, peak, samples[0] >> 20)
