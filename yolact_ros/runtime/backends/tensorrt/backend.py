"""Run a bundle on TensorRT: pinned host memory, one stream, captured CUDA graphs, no torch.

Experimental: TensorRT-RTX has run this on one GPU, an H100, and TensorRT itself never has. The
order of its work is tested on a strict simulation of the driver.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends import PendingRun
from yolact_ros.runtime.backends.tensorrt.build import BuildSettings, LoggedProgress, Report
from yolact_ros.runtime.backends.tensorrt.cache import (
    check_target,
    engine_folders,
    open_engine,
    writable_folder,
)
from yolact_ros.runtime.backends.tensorrt.cuda import Cuda
from yolact_ros.runtime.backends.tensorrt.driver import find_gpu
from yolact_ros.runtime.backends.tensorrt.engine import EngineTensor, TensorRtEngine
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt
from yolact_ros.runtime.bundle import Bundle

LOG = logging.getLogger(__name__)


class DeviceArray:
    """Holds one image's output on the GPU; its memory is reused once nothing refers to it."""

    def __init__(self, address: int, tensor: EngineTensor, *, give_back: Callable[[], None]):
        self.address = address
        self.tensor = tensor
        weakref.finalize(self, give_back)


class TensorRtBackend:
    """Runs the graphs of a bundle from engines.

    One thread creates, uses and closes it.

    Attributes:
        bundle: the opened bundle.
    """

    on_gpu = True

    def __init__(self, bundle: Bundle, engines: Mapping[str, TensorRtEngine], cuda: Cuda) -> None:
        """Allocate buffers, and run and capture each engine once.

        The engines run one after another in one stream, so they share their working memory.

        Args:
            bundle: the bundle.
            engines: by the name of their graph.
            cuda: the GPU, which `close` frees.

        Raises:
            BackendError: there is not enough memory, or an engine fails.
        """
        self.bundle = bundle
        self._cuda = cuda
        workspace = cuda.allocate(max(engine.memory for engine in engines.values()))
        # A GPU that shares the host's memory writes what only the host reads into host arrays.
        read = {name for engine in engines.values() for name in engine.inputs}
        if not cuda.shares_memory:
            read.update(name for engine in engines.values() for name in engine.outputs)
        self._graphs = {
            name: _LoadedGraph(name, engine, cuda, workspace, mapped=engine.outputs.keys() - read)
            for name, engine in engines.items()
        }
        self._batch = bundle.description.batch
        self._free: dict[int, list[int]] = {}  # size -> unused buffers of kept outputs
        self._events = {name: (cuda.event(), cuda.event()) for name in engines}
        self._submitted: dict[str, PendingRun] = {}  # the last run of each graph

    @property
    def device_memory(self) -> int:
        """Return the bytes that tensors and runs take on the GPU, without the engines' weights."""
        return self._cuda.allocated

    def run(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """Run one graph; return outputs in `keep` as `DeviceArray` per image, others as numpy."""
        return self.submit(graph, inputs, keep=keep).fetch()

    def submit(
        self, graph: str, inputs: Mapping[str, Any], *, keep: Collection[str] = ()
    ) -> PendingRun:
        """Start running one graph; see `AsyncBackend.submit` and `run`."""
        if graph not in self._graphs:
            raise BackendError(
                f"The bundle {self.bundle.folder} does not have the graph {graph!r}; it has: "
                f"{', '.join(self._graphs) or 'none: it was closed'}."
            )
        loaded = self._graphs[graph]
        given = loaded.check(inputs)
        self._cuda.use()
        if graph in self._submitted:  # this run uses the same buffers
            self._submitted[graph].wait()
        kept = {
            name: self._keep(tensor)
            for name, tensor in loaded.engine.outputs.items()
            if name in keep
        }
        try:
            self._cuda.record(self._events[graph][0])
            loaded.launch(given, kept)
            self._cuda.record(self._events[graph][1])
        except BaseException:
            # What was queued still reads and writes the buffers.
            with contextlib.suppress(BackendError):
                self._cuda.synchronise()
            raise
        run = PendingRun(partial(self._complete, loaded, kept, self._events[graph]))
        self._submitted[graph] = run
        return run

    def _complete(
        self, loaded: _LoadedGraph, kept: Mapping[str, Any], events: tuple[int, int]
    ) -> tuple[dict[str, Any], float]:
        """Wait for a run; copy its outputs out of the graph's buffers, and return its GPU time."""
        try:
            self._cuda.use()
            self._cuda.synchronise()
            seconds = self._cuda.seconds_between(*events)
        except BackendError:
            # What is queued still reads and writes the buffers.
            with contextlib.suppress(BackendError):
                self._cuda.synchronise()
            raise
        outputs = {n: loaded.host[n].copy() for n in loaded.engine.outputs if n not in kept}
        return {**kept, **outputs}, seconds

    def close(self) -> None:
        """Free everything on the GPU."""
        if self._graphs:
            # Engines free their memory on the current GPU of the thread.
            with contextlib.suppress(BackendError):
                self._cuda.use()
                self._cuda.synchronise()
        self._graphs = {}
        self._submitted = {}
        self._cuda.close()

    def _keep(self, tensor: EngineTensor) -> list[DeviceArray]:
        """Return memory for an output; every image has its own, because its camera keeps it."""
        first, *others = tensor.shape
        one = EngineTensor((first // self._batch, *others), tensor.dtype)
        buffers = self._free.setdefault(one.size, [])
        return [self._device_array(one, buffers) for _ in range(self._batch)]

    def _device_array(self, tensor: EngineTensor, buffers: list[int]) -> DeviceArray:
        address = buffers.pop() if buffers else self._cuda.allocate(tensor.size)
        return DeviceArray(address, tensor, give_back=lambda: buffers.append(address))


class _LoadedGraph:
    """Holds an engine with fixed buffers for each of its tensors, on the host and on the GPU.

    Kept outputs are copied out of them, and used again as inputs copied into them: a copy of a few
    megabytes inside the GPU, for which each graph is captured once instead of once for every
    combination of addresses.
    """

    def __init__(
        self,
        name: str,
        engine: TensorRtEngine,
        cuda: Cuda,
        workspace: int,
        *,
        mapped: Collection[str],
    ) -> None:
        self.engine = engine
        self._name = name
        self._cuda = cuda
        tensors = {**engine.inputs, **engine.outputs}
        self.host = {name: cuda.pinned(t.shape, t.dtype) for name, t in tensors.items()}
        self._mapped = mapped
        self._device = {
            name: cuda.device_address(self.host[name]) if name in mapped else cuda.allocate(t.size)
            for name, t in tensors.items()
        }
        engine.bind(self._device, workspace)
        for name in engine.inputs:
            self.host[name][...] = 0
            cuda.upload(self._device[name], self.host[name])
        # TensorRT prepares itself in a context's first run, which cannot be recorded.
        engine.enqueue(cuda.stream)
        cuda.synchronise()
        self._captured = self._try_to_capture()

    def check(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs as arrays and lists of `DeviceArray` of the engine's shapes and types.

        Raises:
            BackendError: the inputs do not fit.
        """
        if inputs.keys() != self.engine.inputs.keys():
            raise BackendError(
                f"Graph {self._name!r} expects {', '.join(self.engine.inputs)}; it received "
                f"{', '.join(inputs) or 'nothing'}."
            )
        checked = {}
        for name, tensor in self.engine.inputs.items():
            value = inputs[name]
            if isinstance(value, list) and value:
                first, *others = value[0].tensor.shape
                given = EngineTensor((first * len(value), *others), value[0].tensor.dtype)
            else:
                value = np.asarray(value)
                # Features kept by another backend, and a flow, come in float32.
                if value.dtype.kind == tensor.dtype.kind == "f":
                    value = value.astype(tensor.dtype, copy=False)
                given = EngineTensor(value.shape, value.dtype)
            if given != tensor:
                raise BackendError(
                    f"Input {name!r} of graph {self._name!r} has shape {given.shape} and type "
                    f"{given.dtype}; expected {tensor.shape} {tensor.dtype}."
                )
            checked[name] = value
        return checked

    def launch(self, inputs: Mapping[str, Any], kept: Mapping[str, list[DeviceArray]]) -> None:
        """Enqueue copies of the inputs, the run, and copies of the outputs."""
        for name, value in inputs.items():
            if isinstance(value, list):
                for address, array in self._images(name, value):
                    self._cuda.copy(address, array.address, array.tensor.size)
            else:
                np.copyto(self.host[name], value)
                self._cuda.upload(self._device[name], self.host[name])
        if self._captured is None:
            self.engine.enqueue(self._cuda.stream)
        else:
            self._cuda.replay(self._captured)
        for name in self.engine.outputs:
            if name in kept:
                for address, array in self._images(name, kept[name]):
                    self._cuda.copy(array.address, address, array.tensor.size)
            elif name not in self._mapped:
                self._cuda.download(self.host[name], self._device[name])

    def _images(self, name: str, arrays: list[DeviceArray]) -> Iterator[tuple[int, DeviceArray]]:
        """Yield the address of each image in a tensor, with that image's array."""
        for index, array in enumerate(arrays):
            yield self._device[name] + index * array.tensor.size, array

    def _try_to_capture(self) -> int | None:
        """Return a captured run, or None where this version of TensorRT cannot be captured."""
        try:
            return self._cuda.capture(lambda: self.engine.enqueue(self._cuda.stream))
        except BackendError as error:
            LOG.info("Runs are launched one by one, not as CUDA graphs: %s", error)
            return None


def open_tensorrt(
    bundle: Bundle,
    *,
    device: int = 0,
    build: str = "if_missing",
    library: str = "auto",
    report: Report | None = None,
) -> TensorRtBackend:
    """Find or build the engines of a bundle, and open it on a GPU.

    Args:
        bundle: bundle exported for TensorRT.
        device: index of the GPU.
        build: whether engines may be built now, which can take minutes: `never`, `if_missing` or
            `always`.
        library: `tensorrt`, `tensorrt_rtx` or `auto`.
        report: see `LoggedProgress`.

    Raises:
        BackendError: the bundle is for another target; TensorRT, the driver or the GPU is missing;
            or an engine is missing and cannot be built.
    """
    check_target(bundle)
    found = import_tensorrt(library)
    gpu = find_gpu(device)
    cuda = Cuda(device)
    engines: dict[str, TensorRtEngine] = {}
    folder = writable_folder(engine_folders(bundle))
    try:
        for number, graph in enumerate(bundle.graphs, 1):
            what = f"engine {number} of {len(bundle.graphs)} ({graph})"
            opened = open_engine(
                bundle,
                graph,
                library=found,
                gpu=gpu,
                policy=build,
                settings=BuildSettings.for_gpu(gpu, found, folder),
                progress=LoggedProgress(what, report),
            )
            engines[graph] = TensorRtEngine(found, opened.content, graph=graph, path=opened.path)
        backend = TensorRtBackend(bundle, engines, cuda)
        for engine in engines.values():
            engine.save_kernels()
        return backend
    except BaseException:
        engines.clear()
        cuda.close()
        raise
