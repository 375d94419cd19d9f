"""Run a bundle on OpenVINO: Intel's CPUs, GPUs and NPUs, and the CPUs of AMD and ARM.

OpenVINO has no ONNX DeformConv: bundles with deformable layers run in the form `grid_sample`
(`yolact export --deform-conv grid_sample`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.onnxruntime import check_inputs, physical_cores
from yolact_ros.runtime.bundle import Bundle

INSTALL = "OpenVINO is not installed; install it with: pip install 'yolact_ros[openvino]'"

# Values of the setting `provider` that this backend runs on, with OpenVINO's names.
DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}


# Values of the setting `precision`, with the capability that a device names for it.
CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def available_devices() -> dict[str, list[str]]:
    """Return the keys of `DEVICES` on this machine, each with the precisions of its hardware.

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
    """Serves the graphs of a bundle; each is compiled when it is first run.

    Attributes:
        bundle: the opened bundle.
        threads: threads that one graph uses on a CPU.
        on_gpu: whether it runs on a GPU or an NPU.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 0,
        provider: str = "cpu",
        precision: str = "f32",
    ) -> None:
        """Check that the library and the device are there.

        Args:
            bundle: an opened bundle.
            threads: threads on a CPU; 0 takes all physical cores that this process may use.
            provider: a key of `DEVICES`.
            precision: of the arithmetic: `f32`, `bf16` or `f16`. A device computes in what it has,
                so a CPU without bfloat16 in hardware stays at f32.

        Raises:
            BackendError: OpenVINO is not installed or has no such device.
        """
        self._core = _import_library().Core()
        if provider not in DEVICES:
            raise BackendError(
                f"provider is {provider!r}; OpenVINO runs on: {', '.join(DEVICES)}."
            )
        self._device = DEVICES[provider]
        available = [name.split(".")[0] for name in self._core.available_devices]
        if self._device not in available:
            raise BackendError(
                f"OpenVINO finds no {self._device} on this machine; it finds: "
                f"{', '.join(available)}. A GPU or NPU needs Intel's driver for it."
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
            # Other nodes of a robot share the cores.
            self._settings["ENABLE_CPU_PINNING"] = False
        self._requests: dict[str, Any] = {}

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph; outputs are numpy arrays of their own, those in `keep` too."""
        if graph not in self._requests:
            self._requests[graph] = self._load(graph)
        info, request = self.bundle.graphs[graph], self._requests[graph]
        check_inputs(graph, info, inputs)
        # A graph that does not use one of its inputs has lost it here.
        known = {name for port in request.model_inputs for name in port.names}
        arrays = {n: np.ascontiguousarray(value) for n, value in inputs.items() if n in known}
        try:
            # The next run of this graph overwrites the request's own tensors.
            results = request.infer(arrays, share_inputs=True, share_outputs=False)
            return {name: results[name] for name in info.outputs}
        except Exception as error:  # the library does not export its exception types
            raise BackendError(f"OpenVINO failed in the graph {graph!r}: {error}") from error

    def close(self) -> None:
        """Free all graphs."""
        self._requests.clear()

    def _load(self, graph: str) -> Any:
        if graph not in self.bundle.graphs:
            raise BackendError(
                f"The bundle {self.bundle.folder} has no graph {graph!r}; it has: "
                f"{', '.join(self.bundle.graphs)}."
            )
        content = self.bundle.read_graph(graph)
        try:
            model = self._core.read_model(model=content, weights=b"")
            return self._core.compile_model(
                model, self._device, self._settings
            ).create_infer_request()
        except Exception as error:  # the library does not export its exception types
            hint = ""
            if b"DeformConv" in content:
                hint = (
                    " OpenVINO has no DeformConv: export the bundle with "
                    "--deform-conv grid_sample."
                )
            raise BackendError(
                f"OpenVINO does not read the graph {graph!r} of {self.bundle.folder}: "
                f"{str(error).strip().splitlines()[-1]}.{hint}"
            ) from error


def _import_library() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendError(f"{INSTALL} ({error})") from error
    return openvino
