"""Run a bundle on OpenVINO: Intel CPUs, GPUs and NPUs, and the CPUs of AMD and ARM."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.onnxruntime import check_inputs, physical_cores
from yolact_ros.runtime.bundle import Bundle

INSTALL = "OpenVINO is not installed; install it with: pip install 'yolact_ros[openvino]'"

# Values of the setting `provider` that this backend supports, with OpenVINO's names.
DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}


# Values of the setting `precision`, with the name of the device capability.
CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def available_devices() -> dict[str, list[str]]:
    """Return the keys of `DEVICES` on this machine, with the precisions supported by the hardware.

    Raises:
        BackendError: OpenVINO is not installed.
    """
    core = _import_library().Core()
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
            provider: a key of `DEVICES`.
            precision: arithmetic precision: `f32`, `bf16` or `f16`. A device that does not support
                it, such as a CPU without bfloat16 in hardware, stays at f32.

        Raises:
            BackendError: OpenVINO is not installed or has no such device.
        """
        self._core = _import_library().Core()
        self._core.add_extension(_deform_conv())
        if provider not in DEVICES:
            raise BackendError(
                f"provider is {provider!r}; OpenVINO runs on: {', '.join(DEVICES)}."
            )
        self._device = DEVICES[provider]
        available = [name.split(".")[0] for name in self._core.available_devices]
        if self._device not in available:
            raise BackendError(
                f"OpenVINO does not find {self._device} on this machine; it finds: "
                f"{', '.join(available)}. A GPU or NPU requires Intel's driver."
            )
        self.on_gpu = provider != "cpu"
        self.bundle = bundle
        self.threads = threads or physical_cores()
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        if provider == "cpu":
            self._settings["INFERENCE_NUM_THREADS"] = self.threads
            # Other nodes of the robot share the cores.
            self._settings["ENABLE_CPU_PINNING"] = False
        self._requests: dict[str, Any] = {}
        self._submitted: _SubmittedRun | None = None

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph; all outputs are separate numpy arrays, even those in `keep`."""
        return self.submit(graph, inputs, keep=keep).fetch()

    def submit(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> _SubmittedRun:
        """Start running one graph; see `AsyncBackend.submit`."""
        if graph not in self._requests:
            self._requests[graph] = self._load(graph)
        info, request = self.bundle.graphs[graph], self._requests[graph]
        check_inputs(graph, info, inputs)
        # An input that the graph does not use no longer exists here.
        known = {name for port in request.model_inputs for name in port.names}
        arrays = {n: np.ascontiguousarray(value) for n, value in inputs.items() if n in known}
        if self._submitted is not None:
            self._submitted.wait()
        self._submitted = _SubmittedRun(request, graph, arrays, list(info.outputs))
        return self._submitted

    def close(self) -> None:
        """Free all graphs."""
        if self._submitted is not None:
            self._submitted.wait()
            self._submitted = None
        self._requests.clear()

    def _load(self, graph: str) -> Any:
        content = self.bundle.read_graph(graph)
        try:
            model = self._core.read_model(model=content, weights=b"")
            return self._core.compile_model(
                model, self._device, self._settings
            ).create_infer_request()
        except Exception as error:  # the library does not export its exception types
            raise BackendError(
                f"OpenVINO cannot read the graph {graph!r} of {self.bundle.folder}: "
                f"{str(error).strip().splitlines()[-1]}."
            ) from error


class _SubmittedRun:
    """Represents a pending or completed run on OpenVINO.

    Attributes:
        seconds: duration of the run, once it has been fetched.
    """

    def __init__(
        self, request: Any, graph: str, inputs: Mapping[str, Any], outputs: list[str]
    ) -> None:
        self.seconds = 0.0
        self._request = request
        self._graph = graph
        self._names = outputs
        self._outputs: dict[str, Any] | None = None
        self._error: BackendError | None = None
        try:
            request.start_async(inputs, share_inputs=False)
        except Exception as error:  # the library does not export its exception types
            self._error = self._failure(error)

    def wait(self) -> None:
        """Fetch the outputs unless already done; errors are raised by `fetch`."""
        if self._outputs is not None or self._error is not None:
            return
        try:
            self._request.wait()
            # The next run of this graph overwrites the request's tensors.
            self._outputs = {n: self._request.get_tensor(n).data.copy() for n in self._names}
            self.seconds = self._request.latency * 1e-3
        except Exception as error:  # the library does not export its exception types
            self._error = self._failure(error)

    def fetch(self) -> dict[str, Any]:
        """Wait for the run; see `Run.fetch`."""
        self.wait()
        if self._error is not None:
            raise self._error
        assert self._outputs is not None  # `wait` sets the outputs or the error
        return self._outputs

    def _failure(self, error: Exception) -> BackendError:
        return BackendError(f"OpenVINO failed in the graph {self._graph!r}: {error}")


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


def _import_library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendError(f"{INSTALL} ({error})") from error
    return openvino
