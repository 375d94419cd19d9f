"""Compile a graph into an engine with TensorRT or TensorRT-RTX.

Networks are strongly typed: the precision is that of the graph, put there when it was exported.
TensorRT compiles for the GPU that it finds. TensorRT-RTX compiles for named compute capabilities,
without a GPU; the driver finishes its engines on the GPU where they run.
The progress of a build is reported as one fraction of TensorRT's nested phases.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.errors import BackendError
from yolact_ros.files import replace_file
from yolact_ros.runtime.backends.tensorrt.driver import Gpu, default_workspace
from yolact_ros.runtime.backends.tensorrt.library import TensorRt, shared_logger

LOG = logging.getLogger(__name__)

# Receives the finished fraction of a build, from 0 to 1, and returns whether to continue.
Progress = Callable[[float], bool]

# Receives the same as a sentence.
Report = Callable[[str], bool]

LOG_SECONDS = 10.0


class LoggedProgress:
    """Logs the progress of a build and the time left."""

    def __init__(self, what: str, report: Report | None = None) -> None:
        """Start measuring the time.

        Args:
            what: names the engine, e.g. `engine 2 of 3 (non_keyframe)`.
            report: receives each state and returns whether to continue.
        """
        self._what = what
        self._report = report
        self._started: float | None = None
        self._logged = 0.0

    def __call__(self, fraction: float) -> bool:
        """Report, and log at most every `LOG_SECONDS`."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._logged = now
        passed = now - self._started
        left = f", about {passed * (1 / fraction - 1):.0f} s left" if fraction else ""
        state = f"building {self._what}: {100 * fraction:.0f} %{left}"
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            LOG.info(state)
        return self._report is None or self._report(state)


def set_monitor(config: Any, trt: Any, progress: Progress | None) -> Any:
    """Make a build report its progress.

    Args:
        config: an `IBuilderConfig`.
        trt: the library's module.
        progress: called by any thread while the build runs; None: nothing is reported.

    Returns:
        The monitor, whose attribute `stopped` says whether `progress` ended the build; or None.
    """
    if progress is None:
        return None
    report = progress

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Adds up nested phases, each of which is one step of its parent."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[Any]] = {}  # name -> parent, steps, finished steps
            self.largest = 0.0
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = [parent_phase, max(1, num_steps), 0]

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name][2] = step + 1
                # Sibling phases each start at zero; progress that goes back would only confuse.
                self.largest = max(self.largest, self.fraction(phase_name))
                self.stopped = self.stopped or not report(self.largest)
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self.phases.pop(phase_name, None)

        def fraction(self, phase_name: str) -> float:
            inner = 0.0
            phase: str | None = phase_name
            while phase in self.phases:
                parent, steps, done = self.phases[phase]
                inner = min(1.0, (done + inner) / steps)
                phase = parent
            return inner

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


@dataclass(frozen=True)
class BuildSettings:
    """Configures a build.

    Attributes:
        workspace_mib: maximum GPU memory for trying out kernels; None for all of it.
        timing_cache: a file that stores kernel timings, created if missing; a second build of a
            similar graph on the same GPU is then much shorter. TensorRT-RTX times no kernels.
    """

    workspace_mib: int | None = None
    timing_cache: Path | None = None

    @classmethod
    def for_gpu(cls, gpu: Gpu, library: TensorRt, folder: Path | None) -> BuildSettings:
        """Return the settings for a GPU: a timing cache, and a workspace that spares the CPU.

        Args:
            gpu: GPU that runs the build.
            library: library that builds; TensorRT-RTX uses no timing cache.
            folder: folder of the timing cache; None for no timing cache.
        """
        cache = None
        if not library.ahead_of_time and folder is not None:
            name = f"tensorrt-{library.version}-sm{gpu.compute_capability.replace('.', '')}"
            cache = folder / f"{name}x{gpu.multiprocessors}.timing"
        return cls(default_workspace(gpu), cache)


def build_engine(
    content: bytes,
    graph: str,
    *,
    library: TensorRt,
    capabilities: Sequence[str] = (),
    settings: BuildSettings = BuildSettings(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> bytes:
    """Compile one graph.

    Args:
        content: the ONNX model.
        graph: its name, for messages.
        library: see `library.import_tensorrt`.
        capabilities: compute capabilities that the engine is to run on, for TensorRT-RTX; TensorRT
            compiles for the current GPU of the calling thread.
        settings: limits and files.
        progress: called by any thread while the build runs.

    Returns:
        The serialised engine.

    Raises:
        BackendError: the library does not support an operator or a compute capability, memory is
            short, there is no GPU, or the build was stopped; the message quotes the library.
    """
    trt = library.module
    if library.ahead_of_time and settings.timing_cache is not None:
        raise BackendError(
            f"{library.label} times no kernels when it builds; omit the timing cache."
        )
    log = shared_logger(trt)
    log.take_errors()  # of whatever ran before
    try:
        builder = trt.Builder(log)
    except Exception as error:  # the binding has no exception type of its own
        raise _failure("cannot start", graph, library=library, errors=log.take_errors()) from error
    if not builder:
        raise _failure("cannot start", graph, library=library, errors=log.take_errors())
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        raise BackendError(_parser_message(parser, graph, library, content))
    sample_bilinearly(network, trt)
    config = builder.create_builder_config()
    # On by default, and it rounds the inputs of float convolutions to 10 bits of mantissa.
    config.clear_flag(trt.BuilderFlag.TF32)
    if library.ahead_of_time:
        _set_capabilities(config, capabilities, library)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    cache = _set_timing_cache(config, settings.timing_cache)
    monitor = set_monitor(config, trt, progress)
    try:
        engine = builder.build_serialized_network(network, config)
    except Exception as error:  # the binding has no exception type of its own
        errors = [*log.take_errors(), str(error)]
        raise _failure("failed", graph, library=library, errors=errors) from error
    if monitor is not None and monitor.stopped:
        raise BackendError(f"The build of the engine of {graph!r} was stopped.")
    if engine is None:
        raise _failure("failed", graph, library=library, errors=log.take_errors())
    if cache is not None and settings.timing_cache is not None:
        _write_timing_cache(config, settings.timing_cache)
    return bytes(engine)


def network_flags(trt: Any) -> int:
    """Return the flags of a strongly typed network; it is the only kind from TensorRT 11 on."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def sample_bilinearly(network: Any, trt: Any) -> None:
    """Make every GridSample bilinear, the only mode that graphs of this package have.

    ONNX renamed the mode from `bilinear` to `linear` in opset 20. Parsers up to TensorRT 11.1 do
    not know the new name and silently sample the nearest pixel; older bundles have it.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.GRID_SAMPLE:
            layer.__class__ = trt.IGridSampleLayer  # the binding returns plain layers
            layer.interpolation_mode = trt.InterpolationMode.LINEAR


def _set_capabilities(config: Any, capabilities: Sequence[str], library: TensorRt) -> None:
    known = library.capabilities()
    unknown = [capability for capability in capabilities if capability not in known]
    if unknown or not capabilities:
        raise BackendError(
            f"{library.label} does not compile for {', '.join(unknown) or 'nothing'}; it compiles "
            f"for {', '.join(known)}. Other GPUs, such as Jetson and Hopper, require TensorRT "
            "itself (--library tensorrt)."
        )
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        name = f"SM{capability.replace('.', '')}"
        config.set_compute_capability(getattr(library.module.ComputeCapability, name), index)


def _set_timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise BackendError(f"The timing cache {path} cannot be read: {error}.") from error
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise BackendError(
            f"The timing cache {path} is for another GPU or library version; remove it, or "
            "name another file."
        )
    return cache


def _write_timing_cache(config: Any, path: Path) -> None:
    content = bytes(config.get_timing_cache().serialize())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise BackendError(f"The timing cache {path} cannot be written: {error}.") from error


def _parser_message(parser: Any, graph: str, library: TensorRt, content: bytes) -> str:
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = f"node {error.node_name()!r} ({error.node_operator()})"
        lines.append(f"{where}: {error.desc().strip().rstrip('.')}")
    hint = ""
    if b"DeformConv" in content:
        hint = (
            " TensorRT has DeformConv from 10.1 on, TensorRT-RTX not at all; export with --target "
            "tensorrt --deform-conv grid_sample."
        )
    return f"{library.label} cannot read the graph {graph!r}: {'; '.join(lines)}.{hint}"


def _failure(what: str, graph: str, *, library: TensorRt, errors: Sequence[str]) -> BackendError:
    said = " ".join(text.strip().rstrip(".") for text in errors[-3:]) or "it gave no reason"
    hint = ""
    if re.search(r"out of memory|OutOfMemory|insufficient memory|cudaMalloc", said, re.I):
        hint = (
            " Memory is low: end other programs on the GPU, or build with a smaller --workspace."
        )
    elif re.search(r"no CUDA-capable device|CUDA initialization failure|driver", said, re.I):
        hint = (
            " TensorRT must run on the kind of GPU that it builds for, but no GPU is visible here."
        )
    return BackendError(f"{library.label} {what} with the graph {graph!r}: {said}.{hint}")
