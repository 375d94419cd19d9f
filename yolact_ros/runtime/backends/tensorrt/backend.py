"""Run a bundle on TensorRT: pinned host memory, one stream, captured CUDA graphs, no torch."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.cuda import Cuda
from yolact_ros.runtime.backends.tensorrt.engine import EngineTensor, TensorRtEngine
from yolact_ros.runtime.backends.tensorrt.gpu import find_gpu
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt
from yolact_ros.runtime.backends.tensorrt.open import check_target, open_engine
from yolact_ros.runtime.bundle import Bundle

LOG = logging.getLogger(__name__)

# Kept outputs alternate between a few buffers, and each set of addresses is captured by itself.
# A caller who holds on to many of them gets plain launches beyond this number.
MAX_CAPTURED = 8


class DeviceArray:
    """An output that stayed on the GPU; its memory is used again when nobody holds it."""

    def __init__(self, address: int, tensor: EngineTensor, *, give_back: Callable[[], None]):
        self.address = address
        self.tensor = tensor
        weakref.finalize(self, give_back)


class TensorRtBackend:
    """Serves the graphs of a bundle from engines; each is loaded when it is first run.

    To be made, used and closed by one thread.

    Attributes:
        bundle: the opened bundle.
    """

    on_gpu = True

    def __init__(
        self,
        bundle: Bundle,
        *,
        load: Callable[[str], TensorRtEngine],
        cuda: Cuda,
        capture: bool = True,
    ) -> None:
        """Prepare, without loading anything.

        Args:
            bundle: the bundle.
            load: gives the engine of a graph, by the graph's name.
            cuda: the GPU, which `close` frees.
            capture: replay runs as CUDA graphs, which spares the CPU the launches.
        """
        self.bundle = bundle
        self._load = load
        self._cuda = cuda
        self._capture = capture
        self._graphs: dict[str, _LoadedGraph] = {}
        self._free: dict[int, list[int]] = {}  # size -> buffers of kept outputs nobody holds

    @property
    def device_memory(self) -> int:
        """Bytes on the GPU that tensors and runs take; the engines' weights come on top."""
        return self._cuda.allocated + sum(graph.engine.memory for graph in self._graphs.values())

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph; outputs in `keep` come back as `DeviceArray`, all others as numpy."""
        self._cuda.use()
        if graph not in self._graphs:
            if graph not in self.bundle.graphs:
                raise BackendError(
                    f"The bundle {self.bundle.folder} has no graph {graph!r}; it has: "
                    f"{', '.join(self.bundle.graphs)}."
                )
            self._graphs[graph] = _LoadedGraph(self._load(graph), self._cuda)
        loaded = self._graphs[graph]
        addresses = loaded.take_inputs(graph, inputs)
        kept = {
            name: self._keep(tensor)
            for name, tensor in loaded.engine.outputs.items()
            if name in keep
        }
        addresses.update({name: array.address for name, array in kept.items()})
        uploaded = frozenset(n for n, x in inputs.items() if not isinstance(x, DeviceArray))
        loaded.launch(addresses, uploaded, kept.keys(), capture=self._capture)
        self._cuda.synchronise()
        fetched = {n: loaded.host[n].copy() for n in loaded.engine.outputs if n not in kept}
        return {**fetched, **kept}

    def close(self) -> None:
        """Free everything on the GPU."""
        self._graphs.clear()
        self._cuda.close()

    def _keep(self, tensor: EngineTensor) -> DeviceArray:
        buffers = self._free.setdefault(tensor.size, [])
        address = buffers.pop() if buffers else self._cuda.allocate(tensor.size)
        return DeviceArray(address, tensor, give_back=lambda: buffers.append(address))


class _LoadedGraph:
    """An engine with buffers for each of its tensors, here and on the GPU."""

    def __init__(self, engine: TensorRtEngine, cuda: Cuda) -> None:
        self.engine = engine
        self._cuda = cuda
        tensors = {**engine.inputs, **engine.outputs}
        self.host = {name: cuda.pinned(t.shape, t.dtype) for name, t in tensors.items()}
        self._device = {name: cuda.allocate(t.size) for name, t in tensors.items()}
        self._captured: dict[tuple[tuple[str, int], ...], Any] = {}
        self._launched: set[tuple[tuple[str, int], ...]] = set()

    def take_inputs(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, int]:
        """Lay arrays into pinned memory; returns the addresses of all tensors on the GPU."""
        if inputs.keys() != self.engine.inputs.keys():
            raise BackendError(
                f"Graph {graph!r} takes {', '.join(self.engine.inputs)}; it was given "
                f"{', '.join(inputs) or 'nothing'}."
            )
        addresses = dict(self._device)
        for name, tensor in self.engine.inputs.items():
            value = inputs[name]
            if isinstance(value, DeviceArray):
                given = value.tensor
                addresses[name] = value.address
            else:
                value = np.asarray(value)
                # Features kept by another backend, and a flow, come in float32.
                if value.dtype.kind == tensor.dtype.kind == "f":
                    value = value.astype(tensor.dtype, copy=False)
                given = EngineTensor(value.shape, value.dtype)
            if given != tensor:
                raise BackendError(
                    f"Input {name!r} of graph {graph!r} has shape {given.shape} and type "
                    f"{given.dtype}; expected {tensor.shape} {tensor.dtype}."
                )
            if not isinstance(value, DeviceArray):
                np.copyto(self.host[name], value)
        return addresses

    def launch(
        self,
        addresses: Mapping[str, int],
        uploaded: Collection[str],
        kept: Collection[str],
        *,
        capture: bool,
    ) -> None:
        """Put copies and run into the stream: plainly the first time, then as a CUDA graph.

        TensorRT prepares itself in a context's first run with given addresses, which cannot be
        recorded.
        """
        key = tuple(sorted(addresses.items()))

        def work() -> None:
            for name in self.engine.inputs:
                if name in uploaded:
                    self._cuda.upload(addresses[name], self.host[name])
            self.engine.enqueue(addresses, self._cuda.stream)
            for name in self.engine.outputs:
                if name not in kept:
                    self._cuda.download(self.host[name], addresses[name])

        if key in self._captured:
            captured = self._captured[key]
        elif capture and key in self._launched and len(self._captured) < MAX_CAPTURED:
            captured = self._captured[key] = self._try_to_capture(work)
        else:
            captured = None
            self._launched.add(key)
        if captured is None:
            work()
        else:
            self._cuda.replay(captured)

    def _try_to_capture(self, work: Callable[[], None]) -> Any:
        """A captured run, or None where this version of TensorRT cannot be captured."""
        try:
            return self._cuda.capture(work)
        except BackendError as error:
            LOG.info("Runs are launched one by one, not as CUDA graphs: %s", error)
            return None


def open_tensorrt(
    bundle: Bundle, *, device: int = 0, build: str = "if_missing", library: str = "auto"
) -> TensorRtBackend:
    """Find or build the engines of a bundle, and open it on a GPU.

    Args:
        bundle: one that was exported for TensorRT.
        device: index of the GPU.
        build: whether engines may be built now, which can take minutes: `never`, `if_missing` or
            `always`.
        library: `tensorrt`, `tensorrt_rtx` or `auto`.

    Raises:
        BackendError: the bundle is for something else; TensorRT, CUDA for Python, the driver or
            the GPU is not there; or an engine is missing and cannot be built.
    """
    check_target(bundle)
    found = import_tensorrt(library)
    gpu = find_gpu(device)
    cuda = Cuda(device)
    try:
        for graph in bundle.graphs:  # now, not at the first image that needs it
            open_engine(bundle, graph, library=found, gpu=gpu, policy=build)
    except BaseException:
        cuda.close()
        raise

    def load(graph: str) -> TensorRtEngine:
        engine = open_engine(bundle, graph, library=found, gpu=gpu, policy="never")
        return TensorRtEngine(found, engine.content, graph=graph)

    return TensorRtBackend(bundle, load=load, cuda=cuda)
