"""Find the engine of a graph, or build it once, however many processes ask for it.

The peak memory of a build is logged.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolact_ros.errors import BackendError
from yolact_ros.files import user_cache
from yolact_ros.runtime.backends.tensorrt.build import BuildSettings, Progress, build_engine
from yolact_ros.runtime.backends.tensorrt.cuda import current_gpu
from yolact_ros.runtime.backends.tensorrt.driver import Driver, Gpu, available_memory
from yolact_ros.runtime.backends.tensorrt.files import (
    EngineIdentity,
    engine_identity,
    engine_path,
    read_engine,
    write_engine,
)
from yolact_ros.runtime.backends.tensorrt.library import TensorRt
from yolact_ros.runtime.bundle import Bundle

LOG = logging.getLogger(__name__)

# A build takes minutes on a Jetson; a process that has built for longer than this hangs.
LOCK_SECONDS = 3600.0
_POLL_SECONDS = 0.1
SAMPLE_SECONDS = 0.2


def load_engine(
    folders: Sequence[Path],
    graph: str,
    identity: EngineIdentity,
    *,
    build: Callable[[], bytes],
    policy: str = "if_missing",
    lock_seconds: float = LOCK_SECONDS,
) -> tuple[bytes, Path]:
    """Return a checked engine and its file, built now if the policy allows it.

    An engine that is stale, foreign, incomplete or altered counts as missing: it is replaced, or
    rejected under `never`, and never returned.

    Args:
        folders: folders to search, the bundle first; see `engine_folders`. A new engine goes to
            the first one that is writable.
        graph: name of the graph.
        identity: identity that the engine must have.
        build: returns the serialised engine; called by at most one process at a time.
        policy: `never`, `if_missing` or `always`.
        lock_seconds: how long to wait for another process that builds the same engine.

    Raises:
        BackendError: there is no such engine and it may not be built, or the build fails, or
            another process does not finish its own.
    """
    reasons = []
    if policy != "always":
        for folder in folders:
            try:
                path = engine_path(folder, graph, identity)
                return read_engine(path, identity), path
            except BackendError as error:
                reasons.append(str(error))
    reason = " ".join(reasons)
    if policy == "never":
        raise BackendError(
            f"{reason} build_engine is never, so it is not built now. Build it with: "
            f"yolact engine {folders[0]}"
        )
    writable = writable_folder(folders)
    if writable is None:
        raise BackendError(
            f"No engine can be written: {' and '.join(map(str, folders))} cannot be written by "
            f"this user. As a user who can, run: yolact engine {folders[0]}"
        )
    path = engine_path(writable, graph, identity)
    with engine_lock(path, seconds=lock_seconds):
        if policy != "always":
            # Whoever held the lock may have built it.
            with contextlib.suppress(BackendError):
                return read_engine(path, identity), path
        LOG.info("Building the engine %s, which may take minutes. %s", path.name, reason)
        started = time.monotonic()
        content = build()
        seconds = time.monotonic() - started
        write_engine(path, content, identity, seconds=seconds)
        LOG.info("Built the engine %s in %.1f s.", path.name, seconds)
    return content, path


def engine_folders(bundle: Bundle) -> tuple[Path, ...]:
    """Return the folders for engines of a bundle: beside its graphs, then the user's cache.

    An installation may have made the bundle's folder read-only.
    """
    cache, folder = user_cache(), bundle.folder
    if cache is None:
        return (folder,)
    return folder, cache / f"{folder.name}-{bundle.description.identity}"


def writable_folder(folders: Sequence[Path]) -> Path | None:
    """Return the first folder that exists or can be created, and is writable."""
    for folder in folders:
        existing = folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            return folder
    return None


@contextlib.contextmanager
def engine_lock(path: Path, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of one engine, which the system frees if the process ends.

    Args:
        path: path of the engine; the lock is a file beside it, which is kept.
        seconds: how long to wait for the lock.

    Raises:
        BackendError: the lock cannot be created, or another process holds it for too long.
    """
    where = path.with_name(f".{path.name}.lock")
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(where, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(PermissionError):  # of another user, who has done this already
            os.fchmod(handle, 0o666)  # any user may build, whatever the umask
    except OSError as error:
        raise BackendError(f"The lock {where} cannot be created: {error}.") from error
    try:
        _wait_for_lock(handle, where, seconds)
        yield
    finally:
        os.close(handle)  # frees the lock


def _wait_for_lock(handle: int, where: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    waiting = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        except OSError as error:  # e.g. a network drive without locks
            raise BackendError(f"The lock {where} cannot be acquired: {error}.") from error
        if not waiting:
            LOG.info("Another process is building this engine; waiting for it (%s).", where)
            waiting = True
        if time.monotonic() >= deadline:
            raise BackendError(
                f"Another process has held {where} for more than {seconds:g} s. End it, then try "
                "again; locks of ended processes are released."
            )
        time.sleep(_POLL_SECONDS)


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
