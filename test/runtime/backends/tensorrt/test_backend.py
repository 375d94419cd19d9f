"""The TensorRT backend's own work: buffers, kept outputs, captured runs; and its refusals.

The GPU is one of numpy arrays, the engine ONNX Runtime on the same graph: what comes back must be
what ONNX Runtime gives by itself.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_ros.runtime.backends.tensorrt.backend import DeviceArray, TensorRtBackend
from yolact_ros.runtime.backends.tensorrt.cuda import Cuda
from yolact_ros.runtime.backends.tensorrt.engine import EngineTensor
from yolact_ros.runtime.segmenter import Segmenter


class MemoryCuda:
    """The interface of `Cuda` over this process's memory; the stream runs at once."""

    stream = 7

    def __init__(self, *, captures=True):
        self.memory = {}
        self.captures = captures
        self.recording = None
        self.replays = 0
        self.closed = False

    @property
    def allocated(self):
        return sum(len(block) for block in self.memory.values())

    def use(self):
        assert not self.closed

    def allocate(self, size):
        address = 1000 + len(self.memory)
        self.memory[address] = np.full(size, 0xAA, np.uint8)
        return address

    def pinned(self, shape, dtype):
        return np.zeros(shape, dtype)

    def upload(self, address, array):
        self._do(lambda: self.memory[address].__setitem__(slice(None), as_bytes(array)))

    def download(self, array, address):
        self._do(lambda: as_bytes(array).__setitem__(slice(None), self.memory[address]))

    def synchronise(self):
        assert self.recording is None

    def capture(self, work):
        if not self.captures:
            raise BackendError("operation not permitted when stream is capturing")
        self.recording = recorded = []
        work()
        self.recording = None
        return recorded

    def replay(self, captured):
        self.replays += 1
        for step in captured:
            step()

    def close(self):
        self.closed = True
        self.memory.clear()

    def _do(self, step):
        step() if self.recording is None else self.recording.append(step)


def as_bytes(array):
    return array.reshape(-1).view(np.uint8)


class OnnxEngine:
    """The interface of `TensorRtEngine`, computed by ONNX Runtime on a `MemoryCuda`."""

    memory = 64

    def __init__(self, bundle, graph, cuda):
        info = bundle.graphs[graph]
        self.inputs = {n: EngineTensor(t.shape, np.dtype(t.dtype)) for n, t in info.inputs.items()}
        self.outputs = {
            n: EngineTensor(t.shape, np.dtype(t.dtype)) for n, t in info.outputs.items()
        }
        self._backend = OnnxRuntimeBackend(bundle, threads=1)
        self._graph = graph
        self._cuda = cuda

    def enqueue(self, addresses, stream):
        assert stream == MemoryCuda.stream
        self._cuda._do(lambda: self._compute(dict(addresses)))

    def _compute(self, addresses):
        inputs = {
            name: self._cuda.memory[addresses[name]].view(t.dtype).reshape(t.shape)
            for name, t in self.inputs.items()
        }
        for name, value in self._backend.run(self._graph, inputs).items():
            self._cuda.memory[addresses[name]][:] = as_bytes(np.ascontiguousarray(value))


def backend_of(bundle, cuda):
    return TensorRtBackend(bundle, load=lambda graph: OnnxEngine(bundle, graph, cuda), cuda=cuda)


def pictures(count):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (1, 32, 40, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("captures", [True, False])
def test_every_run_gives_what_the_engine_computes_on_that_image(tiny_bundle, captures):
    cuda = MemoryCuda(captures=captures)
    backend, reference = backend_of(tiny_bundle, cuda), OnnxRuntimeBackend(tiny_bundle, threads=1)
    results = [backend.run("detect", {"image": picture}) for picture in pictures(5)]
    for picture, outputs in zip(pictures(5), results, strict=True):  # earlier ones are not reused
        for name, expected in reference.run("detect", {"image": picture}).items():
            np.testing.assert_array_equal(outputs[name], expected)
    assert cuda.replays == (4 if captures else 0)


def test_kept_outputs_stay_on_the_device_and_their_memory_is_used_again(tiny_video_bundle):
    cuda = MemoryCuda()
    backend = backend_of(tiny_video_bundle, cuda)
    (picture,) = pictures(1)
    held = None
    sizes = []
    for _ in range(6):
        outputs = backend.run("keyframe", {"image": picture}, keep=["x4", "x5"])
        assert isinstance(outputs["x4"], DeviceArray)
        held = {name: outputs[name] for name in ("x4", "x5")}
        np.testing.assert_array_equal(cuda.memory[held["x4"].address].view(np.float32), 1.0)
        flow = np.zeros((1, 2, 2, 3), np.float32)
        backend.run("non_keyframe_flow", {"image": picture, "flow": flow, **held})
        del outputs
        gc.collect()
        sizes.append(cuda.allocated)
    assert sizes[1] == sizes[-1]  # two sets of features at most: the held one and the next
    assert backend.device_memory == sizes[-1] + 2 * OnnxEngine.memory


def test_a_stream_of_images_runs_as_on_onnx_runtime(tiny_video_bundle):
    cuda = MemoryCuda()
    description = tiny_video_bundle.description
    ours = Segmenter(backend_of(tiny_video_bundle, cuda), description)
    theirs = Segmenter(OnnxRuntimeBackend(tiny_video_bundle, threads=1), description)
    streams = ours.stream(), theirs.stream()
    for picture in pictures(7):
        got = streams[0].detect(picture[0])
        expected = streams[1].detect(picture[0])
        assert got.frame_type == expected.frame_type
        np.testing.assert_array_equal(got.boxes, expected.boxes)
        np.testing.assert_array_equal(got.full_mask(0), expected.full_mask(0))
    ours.close()
    assert cuda.closed


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({}, "takes image; it was given nothing"),
        ({"image": np.zeros((1, 32, 40, 3), np.float32)}, "type float32; expected .* uint8"),
        ({"image": np.zeros((1, 40, 32, 3), np.uint8)}, r"shape \(1, 40, 32, 3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tiny_bundle, inputs, words):
    with pytest.raises(BackendError, match=words):
        backend_of(tiny_bundle, MemoryCuda()).run("detect", inputs)


def test_a_graph_that_the_bundle_lacks_is_named(tiny_bundle):
    with pytest.raises(BackendError, match="no graph 'keyframe'; it has: detect"):
        backend_of(tiny_bundle, MemoryCuda()).run("keyframe", {})


def test_cuda_says_in_its_own_words_why_there_is_no_gpu():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-python")
    error, count = runtime.cudaGetDeviceCount()
    if not int(error):
        with pytest.raises(BackendError, match=f"no GPU {count}; CUDA shows {count}"):
            Cuda(count)
        return
    with pytest.raises(BackendError, match=r"cudaGetDeviceCount on GPU 0: .*\(error \d+\)"):
        Cuda()
