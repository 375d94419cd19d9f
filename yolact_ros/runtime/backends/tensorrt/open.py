"""Open the engine of a graph for one GPU; build it if it is missing, and log the peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.build import BuildSettings, build_engine
from yolact_ros.runtime.backends.tensorrt.cache import engine_folders, load_engine
from yolact_ros.runtime.backends.tensorrt.cuda import current_gpu
from yolact_ros.runtime.backends.tensorrt.driver import Driver
from yolact_ros.runtime.backends.tensorrt.files import engine_identity
from yolact_ros.runtime.backends.tensorrt.gpu import Gpu, available_memory
from yolact_ros.runtime.backends.tensorrt.library import TensorRt
from yolact_ros.runtime.backends.tensorrt.progress import Progress
from yolact_ros.runtime.bundle import Bundle


@dataclass(frozen=True)
class Engine:
    """Holds an engine that is safe to pass to the library.

    Attributes:
        content: its bytes, which were checked against its sidecar.
        path: its file.
        built: whether it was built now.
    """

    content: bytes
    path: Path
    built: bool


def open_engine(
    bundle: Bundle,
    graph: str,
    *,
    library: TensorRt,
    gpu: Gpu,
    policy: str = "if_missing",
    settings: BuildSettings = BuildSettings(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> Engine:
    """Find the engine of a bundle's graph, or build it.

    Args:
        bundle: exported for TensorRT.
        graph: name of one of its graphs.
        library: that builds and runs the engine.
        gpu: that runs it; for TensorRT a GPU of this machine, for TensorRT-RTX any.
        policy: `never`, `if_missing` or `always`, see `cache.load_engine`.
        settings: for building.
        progress: see `build.build_engine`.

    Raises:
        BackendError: the bundle is for another target, or there is no engine and it may not or
            cannot be built.
    """
    check_target(bundle)
    identity = engine_identity(
        bundle, graph, library=library.name, library_version=library.version, gpu=gpu
    )
    built = False

    def build() -> bytes:
        nonlocal built
        built = True
        # In the thread that builds: TensorRT compiles for the current GPU of its thread.
        with contextlib.ExitStack() as stack:
            if not library.ahead_of_time:
                stack.enter_context(current_gpu(gpu.index))
                what = f"Building the engine of {graph!r}"
                stack.enter_context(logged_peak_memory(gpu, what))
            return build_engine(
                bundle.read_graph(graph),
                graph,
                library=library,
                capabilities=(gpu.compute_capability,) if library.ahead_of_time else (),
                settings=settings,
                progress=progress,
            )

    content, path = load_engine(
        engine_folders(bundle), graph, identity, build=build, policy=policy
    )
    return Engine(content, path, built)


def check_target(bundle: Bundle) -> None:
    """Check that a bundle was exported for TensorRT.

    Raises:
        BackendError: it was not.
    """
    if bundle.description.target != "tensorrt":
        raise BackendError(
            f"{bundle.folder} was exported for {bundle.description.target}. Export it again with: "
            "yolact export CHECKPOINT -o BUNDLE --target tensorrt"
        )


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
