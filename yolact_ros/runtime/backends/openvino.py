"""Run a bundle on OpenVINO: on CPUs of Intel, AMD and ARM, and on GPUs and NPUs of Intel.

Only CPUs have been tested; GPUs and NPUs are experimental.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.files import read_checked, user_cache, write_checked
from yolact_ros.runtime.backends import PendingRun, import_library
from yolact_ros.runtime.backends.onnxruntime import check_inputs, physical_cores
from yolact_ros.runtime.bundle import Bundle

LOG = logging.getLogger(__name__)

# Values of the setting `provider` that this backend supports, with OpenVINO's names.
DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
AUTO = ("GPU", "CPU")  # `auto` is the first of these on the machine

# Values of the setting `precision`, with the name of the device capability.
CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def available_devices() -> dict[str, list[str]]:
    """Return the keys of `DEVICES` on this machine, with the precisions supported by the hardware.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    core = import_library("openvino", "OpenVINO").Core()
    found = {}
    for key, device in DEVICES.items():
        if any(name.split(".")[0] == device for name in core.available_devices):
            has = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
            found[key] = [name for name, capability in CAPABILITIES.items() if capability in has]
    return found


class OpenVinoBackend:
    """Runs the graphs of a bundle; each is compiled on first use.

    Attributes:
        bundle: the opened bundle.
        threads: number of threads per graph on a CPU.
        on_gpu: whether graphs run on a GPU or an NPU.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 0, provider: str = "cpu", precision: str = "f32"
    ) -> None:
        """Check that the library and the device are available.

        Args:
            bundle: an opened bundle.
            threads: threads on a CPU; 0 uses all physical cores available to this process.
            provider: a key of `DEVICES`, or `auto` for a GPU if there is one, otherwise the CPU.
            precision: arithmetic precision: `f32`, `bf16` or `f16`. A device that does not support
                it, such as a CPU without bfloat16 in hardware, stays at f32.

        Raises:
            BackendError: OpenVINO is not installed or has no such device.
        """
        self._library = import_library("openvino", "OpenVINO")
        self._core = self._library.Core()
        self._core.add_extension(_deform_conv())
        if provider not in (*DEVICES, "auto"):
            raise BackendError(
                f"provider is {provider!r}; OpenVINO runs on: {', '.join(DEVICES)}, auto."
            )
        available = [name.split(".")[0] for name in self._core.available_devices]
        candidates = AUTO if provider == "auto" else (DEVICES[provider],)
        found = [device for device in candidates if device in available]
        if not found:
            raise BackendError(
                f"OpenVINO does not find {' or '.join(candidates)} on this machine; it finds: "
                f"{', '.join(available)}. A GPU or NPU requires Intel's driver."
            )
        self._device = found[0]
        self.on_gpu = self._device != "CPU"
        self.bundle = bundle
        self.threads = threads or physical_cores()
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        if not self.on_gpu:
            self._settings["INFERENCE_NUM_THREADS"] = self.threads
            # Other nodes of the robot share the cores.
            self._settings["ENABLE_CPU_PINNING"] = False
        # Memory for outputs, which an integrated GPU shares with the CPU.
        self._allocate: Callable[[Any, Any], Any] = self._library.Tensor
        if self._device == "GPU":
            self._allocate = self._core.get_default_context("GPU").create_host_tensor
        self._requests: dict[str, Any] = {}
        self._submitted: PendingRun | None = None

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph; outputs in `keep` are tensors of OpenVINO, all others numpy arrays.

        In a batch all are arrays, which split into images.
        """
        return self.submit(graph, inputs, keep=keep).fetch()

    def submit(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> PendingRun:
        """Start running one graph; see `AsyncBackend.submit`."""
        if graph not in self._requests:
            self._requests[graph] = self._load(graph).create_infer_request()
        info, request = self.bundle.graphs[graph], self._requests[graph]
        handle = self._library.Tensor
        arrays = {n: v.data if isinstance(v, handle) else v for n, v in inputs.items()}
        check_inputs(graph, info, arrays)
        # An input that the graph does not use no longer exists here.
        known = {name for port in request.model_inputs for name in port.names}
        tensors = {
            name: value
            if isinstance(value, handle)
            else handle(np.ascontiguousarray(value), shared_memory=False)
            for name, value in inputs.items()
            if name in known
        }
        if self._submitted is not None:
            self._submitted.wait()
        kept = keep if self.bundle.description.batch == 1 else ()
        with _failing(graph):
            # Fresh memory, because the next run of this graph overwrites the request's own.
            for port in request.model_outputs:
                if port.partial_shape.is_static:
                    request.set_tensor(port, self._allocate(port.element_type, port.shape))
            request.start_async(tensors)

        def complete() -> tuple[dict[str, Any], float]:
            with _failing(graph):
                request.wait()
                outputs = {n: _output(request, n, keep=n in kept) for n in info.outputs}
                return outputs, request.latency * 1e-3

        self._submitted = PendingRun(complete)
        return self._submitted

    def close(self) -> None:
        """Free all graphs."""
        if self._submitted is not None:
            self._submitted.wait()
            self._submitted = None
        self._requests.clear()

    def _load(self, graph: str) -> Any:
        """Return a compiled graph, from the user's cache if it is there, or compile and store it.

        The cache holds one file per graph, OpenVINO version, device and precision; any of them
        may be deleted.
        """
        content = self.bundle.read_graph(graph)
        path = self._cache_file(content)
        if path is not None and (stored := read_checked(path)):
            try:
                return self._core.import_model(io.BytesIO(stored), self._device, self._settings)
            except Exception as error:  # noqa: BLE001 - the library does not export its types
                LOG.warning("Compiling the graph %r again, not reading %s: %s", graph, path, error)
        try:
            model = self._core.read_model(model=content, weights=b"")
            compiled = self._core.compile_model(model, self._device, self._settings)
        except Exception as error:  # the library does not export its exception types
            raise BackendError(
                f"OpenVINO cannot run the graph {graph!r} of {self.bundle.folder} on "
                f"{self._device}: {str(error).strip().splitlines()[-1]}."
            ) from error
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                compact = compiled.export_model().getvalue()
                write_checked(path, compact)
            except Exception as error:  # noqa: BLE001 - a full disk, or a device without export
                LOG.info("The compiled graph %r cannot be stored in %s: %s", graph, path, error)
        return compiled

    def _cache_file(self, content: bytes) -> Path | None:
        cache = user_cache()
        if cache is None:
            return None
        key = (
            self._library.__version__,
            self._core.get_property(self._device, "FULL_DEVICE_NAME"),
            str(self._settings["INFERENCE_PRECISION_HINT"]),
            hashlib.sha256(content).hexdigest(),
        )
        return cache / "openvino" / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.blob"


def _output(request: Any, name: str, *, keep: bool) -> Any:
    """Return a tensor of OpenVINO if it is to be kept, otherwise a numpy array."""
    tensor = request.get_tensor(name)
    ports = request.model_outputs
    if any(name in port.names and port.partial_shape.is_dynamic for port in ports):
        tensor = type(tensor)(tensor.data, shared_memory=False)
    return tensor if keep else tensor.data


@contextlib.contextmanager
def _failing(graph: str) -> Iterator[None]:
    """Raise errors of the library, which does not export their types, as `BackendError`."""
    try:
        yield
    except Exception as error:
        raise BackendError(f"OpenVINO failed in the graph {graph!r}: {error}") from error


def _deform_conv() -> Any:
    """Return the rule that reads ONNX DeformConv, which OpenVINO's own reader lacks."""
    from openvino import opset8
    from openvino.frontend.onnx import ConversionExtension

    def convert(node: Any) -> Any:
        image, weight, offsets, bias, mask = (node.get_input(i) for i in range(5))
        pads = node.get_attribute("pads")
        convolved = opset8.deformable_convolution(
            image,
            offsets,
            weight,
            node.get_attribute("strides"),
            pads[:2],
            pads[2:],
            node.get_attribute("dilations"),
            mask=mask,
            # Samples beyond the border are interpolated with zeros, as ONNX defines it.
            bilinear_interpolation_pad=True,
        )
        shape = np.array([1, -1, 1, 1], np.int64)
        return opset8.add(convolved, opset8.reshape(bias, shape, False)).outputs()

    return ConversionExtension("DeformConv", convert)
