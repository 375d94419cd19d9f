"""Run a bundle on ONNX Runtime, the default backend: on CPUs or, through providers, on GPUs."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends import import_library, shapes_match
from yolact_ros.runtime.backends.tensorrt.cache import engine_folders, writable_folder
from yolact_ros.runtime.bundle import Bundle, GraphInfo, TensorInfo

# ONNX Runtime's names of the tensor types that graphs of this package use.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


# The first version with DeformConv on the CPU.
DEFORM_CONV = (1, 25)

# ONNX Runtime's execution providers in order of preference, and the device of their tensors.
PROVIDERS = {
    "cpu": (("CPUExecutionProvider",), "cpu"),
    "cuda": (("CUDAExecutionProvider", "CPUExecutionProvider"), "cuda"),
    "tensorrt": (
        ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        "cuda",
    ),
}


# Options of the runs in progress, in any thread.
_running: set[Any] = set()


def stop_runs() -> None:
    """Ask ONNX Runtime to abort all runs in progress; they fail at their next operator."""
    for options in tuple(_running):
        options.terminate = True


class OnnxRuntimeBackend:
    """Runs the graphs of a bundle; each is loaded on first use.

    Attributes:
        bundle: the opened bundle.
        threads: number of threads per operator.
        on_gpu: whether graphs run on a GPU.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 0,
        provider: str = "cpu",
        device: int = 0,
        half: bool = False,
    ) -> None:
        """Check that the library is available.

        Args:
            bundle: an opened bundle.
            threads: threads per operator; 0 uses all physical cores available to this process.
            provider: a key of `PROVIDERS`.
            device: index of the GPU.
            half: whether the TensorRT provider computes in half precision.

        Raises:
            BackendError: ONNX Runtime is not installed or lacks the provider, or `threads` is
                negative.
        """
        if threads < 0:
            raise BackendError(f"threads is {threads}; expected 0 (all cores) or more.")
        self._library = import_library("onnxruntime", "ONNX Runtime")
        if provider not in PROVIDERS:
            raise BackendError(
                f"provider is {provider!r}; ONNX Runtime runs on: {', '.join(PROVIDERS)}."
            )
        self._providers, self._device_type = PROVIDERS[provider]
        self._device = device
        self._half = half
        self.on_gpu = self._device_type != "cpu"
        available = self._library.get_available_providers()
        if self._providers[0] not in available:
            raise BackendError(
                f"This ONNX Runtime {self._library.__version__} lacks {self._providers[0]}; it "
                f"has: {', '.join(available)}. Install a build that has it (onnxruntime-gpu), or "
                "set provider to cpu."
            )
        self.bundle = bundle
        self.threads = threads or physical_cores()
        self._sessions: dict[str, Any] = {}

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph; return outputs in `keep` as OrtValues, all others as numpy arrays.

        In a batch all are arrays, because an OrtValue cannot be split into images.
        """
        if graph not in self._sessions:
            self._sessions[graph] = self._load(graph)
        info, session = self.bundle.graphs[graph], self._sessions[graph]
        check_inputs(graph, info, inputs)
        kept = set(keep) & set(info.outputs) if self.bundle.description.batch == 1 else set()
        options = self._library.RunOptions()
        _running.add(options)
        try:
            if kept or self._device_type != "cpu" or any(_is_handle(x) for x in inputs.values()):
                return self._run_bound(session, info, inputs, kept, options)
            outputs = session.run(list(info.outputs), dict(inputs), options)
        except Exception as error:  # the library does not export its exception types
            raise BackendError(f"ONNX Runtime failed in the graph {graph!r}: {error}") from error
        finally:
            _running.discard(options)
        return dict(zip(info.outputs, outputs, strict=True))

    def _run_bound(
        self,
        session: Any,
        info: GraphInfo,
        inputs: Mapping[str, Any],
        kept: Collection[str],
        options: Any,
    ) -> dict[str, Any]:
        """Run with inputs and outputs where they are, or where they are to stay."""
        binding = session.io_binding()
        for name, value in inputs.items():
            if _is_handle(value):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in info.outputs:
            if name in kept:
                binding.bind_output(name, self._device_type, self._device)
            else:
                binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding, options)
        values = dict(zip(info.outputs, binding.get_outputs(), strict=True))
        return {n: value if n in kept else value.numpy() for n, value in values.items()}

    def close(self) -> None:
        """Free all sessions."""
        self._sessions.clear()

    def _load(self, graph: str) -> Any:
        content = self.bundle.read_graph(graph)
        library = self._library
        options = library.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        levels = library.GraphOptimizationLevel
        made = self.bundle.description
        # Version 1.31 fuses quantized layers in half precision incorrectly.
        for_gpu = made.target == "tensorrt" and made.precision == "int8"
        options.graph_optimization_level = (
            levels.ORT_DISABLE_ALL if for_gpu else levels.ORT_ENABLE_ALL
        )
        options.log_severity_level = 3  # errors only; they are raised as exceptions
        # Threads that spin between operators would keep a robot's other nodes off the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = self.bundle.graphs[graph].path
        try:
            engines = None
            if "TensorrtExecutionProvider" in self._providers:
                engines = writable_folder(engine_folders(self.bundle))
            providers = provider_options(
                self._providers,
                self.bundle.graphs[graph],
                device=self._device,
                half=self._half,
                engines=engines,
            )
            session = library.InferenceSession(content, sess_options=options, providers=providers)
        except Exception as error:  # the library does not export its exception types
            hint = ""
            version = tuple(int(part) for part in library.__version__.split(".")[:2])
            if "DeformConv" in str(error) and version < DEFORM_CONV:
                hint = (
                    " DeformConv requires ONNX Runtime 1.25 or later; install it, or export with "
                    "--deform-conv grid_sample."
                )
            raise BackendError(
                f"ONNX Runtime {library.__version__} rejects {path}: {error}{hint}"
            ) from error
        # It keeps the file's bytes to fall back silently to the CPU should a GPU fail.
        session.disable_fallback()
        session._model_bytes = None
        # If a provider's libraries are missing, it only logs a line and falls back to the CPU.
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if session.get_providers()[0] != first:
            raise BackendError(
                f"ONNX Runtime cannot start {first}; check that CUDA, cuDNN and the driver are "
                "installed in the versions that it requires."
            )
        return session


def available_providers() -> list[str]:
    """Return the keys of `PROVIDERS` that this build of ONNX Runtime has, the CPU first.

    Raises:
        BackendError: ONNX Runtime is not installed.
    """
    available = import_library("onnxruntime", "ONNX Runtime").get_available_providers()
    return [name for name, (providers, _) in PROVIDERS.items() if providers[0] in available]


def provider_options(
    names: Sequence[str],
    info: GraphInfo,
    *,
    device: int,
    half: bool = False,
    engines: Path | None = None,
) -> list[Any]:
    """Return the session's providers for one graph, with their options.

    With the defaults, a run stalls at every new shape: the CUDA provider tries every algorithm of
    cuDNN, and the TensorRT provider rebuilds its engine. So cuDNN chooses by its heuristics, and
    a graph with free dimensions is not given to TensorRT; engines are cached in the folder
    `engines`, if there is one.
    """
    providers: list[Any] = []
    free = any(-1 in tensor.shape for tensor in info.inputs.values())
    for name in names:
        options = {"device_id": str(device)}
        if name == "TensorrtExecutionProvider":
            if free:
                continue
            if half:
                options["trt_fp16_enable"] = "1"
            if engines is not None:
                folder = str(engines / "onnxruntime_tensorrt")
                os.makedirs(folder, exist_ok=True)  # the provider does not make its parents
                options |= {
                    "trt_engine_cache_enable": "1",
                    "trt_engine_cache_path": folder,
                    "trt_timing_cache_enable": "1",
                    "trt_timing_cache_path": folder,
                }
        elif name == "CUDAExecutionProvider":
            options["cudnn_conv_algo_search"] = "HEURISTIC"
        providers.append(name if name.startswith("CPU") else (name, options))
    return providers


def describe_graph(content: bytes) -> tuple[dict[str, TensorInfo], dict[str, TensorInfo]]:
    """Return the inputs and outputs of an ONNX model, by name.

    Raises:
        BackendError: ONNX Runtime is absent or rejects the model.
    """
    library = import_library("onnxruntime", "ONNX Runtime")
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = library.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library does not export its exception types
        raise BackendError(f"ONNX Runtime rejects the graph: {error}") from error
    return _infos(session.get_inputs()), _infos(session.get_outputs())


def physical_cores() -> int:
    """Return the number of physical cores available to this process.

    Two threads on one core compute no faster than one. CPU affinity and the container's quota
    (cgroup v2) are respected.
    """
    siblings = set()
    for cpu in _usable_cpus():
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(path.read_text())
        except OSError:  # another system, or a container that hides it
            siblings.add(str(cpu))
    return max(1, min(len(siblings), _quota()))


def _usable_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the container's CPU quota, rounded up; a very large number without a limit."""
    try:
        granted, period = path.read_text().split()
        return sys.maxsize if granted == "max" else math.ceil(int(granted) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup v2
        return sys.maxsize


def _infos(tensors: Any) -> dict[str, TensorInfo]:
    return {
        tensor.name: TensorInfo(
            tuple(n if isinstance(n, int) else -1 for n in tensor.shape),
            DTYPES.get(tensor.type, tensor.type),
        )
        for tensor in tensors
    }


def check_inputs(graph: str, info: GraphInfo, inputs: Mapping[str, Any]) -> None:
    """Check names, shapes and types of a graph's inputs.

    Raises:
        BackendError: the inputs do not fit.
    """
    if set(inputs) != set(info.inputs):
        raise BackendError(
            f"Graph {graph!r} expects {', '.join(info.inputs)}; it received "
            f"{', '.join(inputs) or 'nothing'}."
        )
    for name, expected in info.inputs.items():
        given, dtype = _shape_and_dtype(inputs[name])
        if not shapes_match(given, expected.shape) or dtype != expected.dtype:
            shape = tuple("any" if n == -1 else n for n in expected.shape)
            raise BackendError(
                f"Input {name!r} of graph {graph!r} has shape {given} and type {dtype}; expected "
                f"{shape} {expected.dtype}."
            )


def _is_handle(value: Any) -> bool:
    """Return whether a value is an OrtValue, which numpy would turn into an object array."""
    return hasattr(value, "device_name")


def _shape_and_dtype(value: Any) -> tuple[tuple[int, ...], str]:
    if _is_handle(value):
        return tuple(value.shape()), DTYPES.get(value.data_type(), value.data_type())
    array = np.asarray(value)
    return array.shape, str(array.dtype)
