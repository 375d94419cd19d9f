"""Compile a graph into an engine: TensorRT 10 and later, TensorRT 8, TensorRT-RTX, one path.

From TensorRT 10 on, and in TensorRT-RTX, networks are strongly typed: the precision is that of the
graph, put there when it was exported. TensorRT 8 chooses types itself; it is allowed half
precision by a flag, and told which layers stay float by the graph.

TensorRT compiles for the GPU that it finds. TensorRT-RTX compiles for named compute capabilities,
without a GPU; the driver finishes its engines on the GPU where they run.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.errors import BackendError

LOG = logging.getLogger(__name__)

LIBRARIES = ("tensorrt", "tensorrt_rtx")
OLDEST = (8, 5)  # the first with GridSample, and that of JetPack 5.1

INSTALL = (
    "There is no TensorRT here ({reason}). On a Jetson it comes with JetPack (apt install "
    "python3-libnvinfer); elsewhere: pip install tensorrt, or for GeForce and RTX GPUs: "
    "pip install 'yolact_ros[tensorrt_rtx]'."
)

# Is told how far a build has come, from 0 to 1, and says whether it is to go on.
Progress = Callable[[float], bool]


@dataclass(frozen=True)
class TensorRt:
    """An imported library.

    Attributes:
        name: `tensorrt` or `tensorrt_rtx`.
        version: in full.
        module: the library.
    """

    name: str
    version: str
    module: Any

    @property
    def label(self) -> str:
        """Name and version for people."""
        return f"{'TensorRT-RTX' if self.ahead_of_time else 'TensorRT'} {self.version}"

    @property
    def ahead_of_time(self) -> bool:
        """Whether it compiles for GPUs that are not there."""
        return self.name == "tensorrt_rtx"

    @property
    def strongly_typed(self) -> bool:
        """Whether a network computes in the types of its graph."""
        return self.ahead_of_time or version_numbers(self.version) >= (10,)

    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities that it compiles for ahead of time; empty for TensorRT."""
        if not self.ahead_of_time:
            return ()
        names = self.module.ComputeCapability.__members__
        digits = [name[2:] for name in names if re.fullmatch(r"SM\d{2,3}", name)]
        return tuple(f"{text[:-1]}.{text[-1]}" for text in digits)


@dataclass(frozen=True)
class BuildSettings:
    """How to build.

    Attributes:
        workspace_mib: most memory on the GPU that trying out kernels may take; None: all of it.
        timing_cache: a file that remembers kernels' times, made if need be; a second build of a
            like graph on the same GPU is then much shorter. TensorRT-RTX times none.
    """

    workspace_mib: int | None = None
    timing_cache: Path | None = None


def import_tensorrt(name: str = "auto") -> TensorRt:
    """Import TensorRT or TensorRT-RTX.

    Args:
        name: one of `LIBRARIES`; `auto` is the first that can be imported.

    Raises:
        BackendError: it cannot be imported, or is too old.
    """
    if name not in ("auto", *LIBRARIES):
        raise BackendError(
            f"Unknown library {name!r}; expected one of: auto, {', '.join(LIBRARIES)}."
        )
    reasons = []
    for candidate in LIBRARIES if name == "auto" else (name,):
        try:
            module = importlib.import_module(candidate)
        except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
            reasons.append(f"{candidate}: {error}")
            continue
        found = TensorRt(candidate, str(module.__version__), module)
        if not found.ahead_of_time and version_numbers(found.version) < OLDEST:
            raise BackendError(
                f"{found.label} is too old; expected 8.5 or later. On a Jetson install a newer "
                "JetPack."
            )
        if not found.ahead_of_time:
            # Among TensorRT's own plugins is the one that computes DeformConv, in engines too.
            module.init_libnvinfer_plugins(None, "")
        return found
    raise BackendError(INSTALL.format(reason="; ".join(reasons)))


def version_numbers(version: str) -> tuple[int, ...]:
    """`10.3.0.post1` to (10, 3, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def build_engine(
    content: bytes,
    graph: str,
    *,
    library: TensorRt,
    precision: str,
    capabilities: Sequence[str] = (),
    settings: BuildSettings = BuildSettings(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> bytes:
    """Compile one graph.

    Args:
        content: the ONNX model.
        graph: its name, for messages.
        library: see `import_tensorrt`.
        precision: `fp32`, `fp16` or `int8`, as the graph was exported.
        capabilities: compute capabilities that the engine is to run on, for TensorRT-RTX; TensorRT
            compiles for the GPU of this machine.
        settings: limits and files.
        progress: called by any thread while the build runs, except by TensorRT 8.

    Returns:
        The serialised engine.

    Raises:
        BackendError: the library does not support an operator or a compute capability, memory is
            short, there is no GPU, or the build was stopped; the message has the library's words.
    """
    trt = library.module
    if library.ahead_of_time and settings.timing_cache is not None:
        raise BackendError(
            f"{library.label} times no kernels when it builds; leave the timing cache out."
        )
    log = make_logger(trt)
    try:
        builder = trt.Builder(log)
    except Exception as error:  # the binding has no exception type of its own
        raise _failure("cannot start", graph, library=library, words=log.errors) from error
    if not builder:
        raise _failure("cannot start", graph, library=library, words=log.errors)
    network = builder.create_network(_network_flags(library))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        raise BackendError(_parser_words(parser, graph, library, content))
    config = builder.create_builder_config()
    if not library.strongly_typed:
        allow_precision(network, config, content, library=library, precision=precision)
    if library.ahead_of_time:
        _set_capabilities(config, capabilities, library)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mib << 20)
    cache = _set_timing_cache(config, settings.timing_cache)
    monitor = _set_monitor(config, trt, progress)
    try:
        engine = builder.build_serialized_network(network, config)
    except Exception as error:  # the binding has no exception type of its own
        words = [*log.errors, str(error)]
        raise _failure("failed", graph, library=library, words=words) from error
    if monitor is not None and monitor.stopped:
        raise BackendError(f"The build of the engine of {graph!r} was stopped.")
    if engine is None:
        raise _failure("failed", graph, library=library, words=log.errors)
    if cache is not None and settings.timing_cache is not None:
        _write_timing_cache(config, settings.timing_cache)
    return bytes(engine)


def make_logger(trt: Any) -> Any:
    """A logger for TensorRT that keeps errors and passes warnings on to `logging`."""

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                LOG.debug("%s", message)

    return Log()


def _network_flags(library: TensorRt) -> int:
    flags = library.module.NetworkDefinitionCreationFlag
    if library.strongly_typed:
        typed = getattr(flags, "STRONGLY_TYPED", None)  # the only kind, so no flag, some day
        return 0 if typed is None else 1 << int(typed)
    return 1 << int(flags.EXPLICIT_BATCH)


def _set_capabilities(config: Any, capabilities: Sequence[str], library: TensorRt) -> None:
    known = library.capabilities()
    unknown = [capability for capability in capabilities if capability not in known]
    if unknown or not capabilities:
        raise BackendError(
            f"{library.label} does not compile for {', '.join(unknown) or 'nothing'}; it compiles "
            f"for {', '.join(known)}. Other GPUs, Jetson and Hopper among them, need TensorRT "
            "itself (--library tensorrt)."
        )
    config.num_compute_capabilities = len(capabilities)
    for place, capability in enumerate(capabilities):
        name = f"SM{capability.replace('.', '')}"
        config.set_compute_capability(getattr(library.module.ComputeCapability, name), place)


def allow_precision(
    network: Any, config: Any, content: bytes, *, library: TensorRt, precision: str
) -> None:
    """TensorRT 8: half by a flag, and float where the graph says float."""
    trt = library.module
    if precision == "fp32":
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    stay_float = _float_values(content, library)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        names = [layer.get_output(place).name for place in range(layer.num_outputs)]
        if stay_float.issuperset(names):
            layer.precision = trt.float32
            for place in range(layer.num_outputs):
                layer.set_output_type(place, trt.float32)


def _float_values(content: bytes, library: TensorRt) -> set[str]:
    try:
        import onnx
    except ImportError as error:
        raise BackendError(
            f"{library.label} needs the package onnx to build in half precision; install it with: "
            "pip install onnx"
        ) from error
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content)).graph
    return {
        value.name
        for value in [*graph.value_info, *graph.output]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


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
            f"The timing cache {path} is of another GPU or version of the library; remove it, or "
            "name another file."
        )
    return cache


def _write_timing_cache(config: Any, path: Path) -> None:
    from yolact_ros.runtime.backends.tensorrt.files import replace_file

    content = bytes(config.get_timing_cache().serialize())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise BackendError(f"The timing cache {path} cannot be written: {error}.") from error


def _set_monitor(config: Any, trt: Any, progress: Progress | None) -> Any:
    """Let the library tell its progress, if it can (TensorRT 8 cannot)."""
    if progress is None or not hasattr(trt, "IProgressMonitor"):
        return None
    tell = progress

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """Phases have phases inside, each of which is one step of the phase around it."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, list[Any]] = {}  # name -> phase around it, steps, steps done
            self.stopped = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases[phase_name] = [parent_phase, max(1, num_steps), 0]

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                self.phases[phase_name][2] = step + 1
                self.stopped = self.stopped or not tell(self.fraction(phase_name))
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


def _parser_words(parser: Any, graph: str, library: TensorRt, content: bytes) -> str:
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator = error.node_operator() if hasattr(error, "node_operator") else ""
        name = error.node_name() if hasattr(error, "node_name") else error.node()
        where = f"node {name!r} ({operator}): " if operator else f"node {name}: "
        lines.append(f"{where}{error.desc().strip().rstrip('.')}")
    hint = ""
    if b"DeformConv" in content:
        hint = (
            " TensorRT has DeformConv from 10.1 on, TensorRT-RTX not at all; export with --target "
            "tensorrt --deform-conv grid_sample."
        )
    return f"{library.label} does not read the graph {graph!r}: {'; '.join(lines)}.{hint}"


def _failure(what: str, graph: str, *, library: TensorRt, words: Sequence[str]) -> BackendError:
    said = " ".join(word.strip().rstrip(".") for word in words[-3:]) or "it gave no reason"
    hint = ""
    if re.search(r"out of memory|OutOfMemory|insufficient memory|cudaMalloc", said, re.I):
        hint = (
            " Memory is short: end other programs on the GPU, or build with a smaller --workspace."
        )
    elif re.search(r"no CUDA-capable device|CUDA initialization failure|driver", said, re.I):
        hint = " TensorRT builds on the GPU that it builds for; this machine shows none."
    return BackendError(f"{library.label} {what} with the graph {graph!r}: {said}.{hint}")
