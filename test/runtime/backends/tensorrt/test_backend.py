"""The TensorRT backend orders its work correctly, on a strict fake of the NVIDIA driver.

`fake_cuda.c` is compiled and loaded as the driver: work is deferred, freed memory poisoned, every
copy checked. The engine is ONNX Runtime on the same graph, enqueued as a host function, so what
comes back has to be bit-equal to what ONNX Runtime gives by itself.
"""

from __future__ import annotations

import ctypes
import types

import numpy as np
import pytest

from yolact_ros.config import KeyframeConfig, ModelConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend
from yolact_ros.runtime.backends.tensorrt import backend as backend_module
from yolact_ros.runtime.backends.tensorrt.backend import DeviceArray, TensorRtBackend
from yolact_ros.runtime.backends.tensorrt.build import BuildSettings
from yolact_ros.runtime.backends.tensorrt.cuda import Cuda
from yolact_ros.runtime.backends.tensorrt.driver import find_gpu
from yolact_ros.runtime.backends.tensorrt.engine import EngineTensor
from yolact_ros.runtime.backends.tensorrt.library import TensorRt
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.network import Network
from yolact_ros.runtime.segmenter import Segmenter

CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
TINY = ModelConfig(name="tiny", classes=("cup", "spoon"), input_size=(32, 40), num_prototypes=1)


class OnnxEngine:
    """Implements the interface of `TensorRtEngine` by ONNX Runtime on the fake's memory."""

    memory = 64

    def __init__(self, bundle, graph, fake):
        info = bundle.graphs[graph]
        self.inputs = {n: EngineTensor(t.shape, np.dtype(t.dtype)) for n, t in info.inputs.items()}
        self.outputs = {
            n: EngineTensor(t.shape, np.dtype(t.dtype)) for n, t in info.outputs.items()
        }
        self._backend = OnnxRuntimeBackend(bundle, threads=1)
        self._graph = graph
        self._fake = fake
        self._addresses = {}
        self.errors = []
        self.runs = 0
        self._callback = CALLBACK(self._compute)

    def bind(self, addresses, workspace):
        assert self._fake.fake_is_device(workspace, self.memory)
        self._addresses = dict(addresses)

    def enqueue(self, stream):
        status = self._fake.fake_host_function(stream, self._callback, None)
        if status:
            raise BackendError(f"enqueue: {status}")

    def _compute(self, data):
        try:
            self.runs += 1
            inputs = {name: self._array(name, tensor) for name, tensor in self.inputs.items()}
            for name, value in self._backend.run(self._graph, inputs).items():
                self._array(name, self.outputs[name])[...] = value
        except BaseException as error:  # noqa: BLE001 - a callback cannot raise
            self.errors.append(error)

    def _array(self, name, tensor):
        address = self._addresses[name]
        assert self._fake.fake_is_device(address, tensor.size), name
        memory = (ctypes.c_uint8 * tensor.size).from_address(address)
        return np.frombuffer(memory, tensor.dtype).reshape(tensor.shape)


@pytest.fixture
def backend_of(fake):
    """Open backends on the fake driver; close them at the end and check for errors."""
    made, engines = [], []

    def make(bundle):
        ours = {graph: OnnxEngine(bundle, graph, fake) for graph in bundle.graphs}
        engines.extend(ours.values())
        cuda = Cuda()
        try:
            made.append(TensorRtBackend(bundle, ours, cuda))
        except BaseException:
            cuda.close()
            raise
        made[-1].test_engines = ours
        return made[-1]

    yield make
    for backend in made:
        backend.close()
        backend.close()  # twice does no harm
    assert [error for engine in engines for error in engine.errors] == []


def pictures(count):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (1, 32, 40, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("own_memory", [False, True])
def test_every_run_returns_the_engines_results_for_its_image(
    tiny_bundle, backend_of, fake, own_memory
):
    if own_memory:
        fake.fake_own_memory()
    backend = backend_of(tiny_bundle)
    live = fake.fake_live()
    reference = OnnxRuntimeBackend(tiny_bundle, threads=1)
    results = [backend.run("detect", {"image": picture}) for picture in pictures(5)]
    for picture, outputs in zip(pictures(5), results, strict=True):  # earlier ones are not reused
        for name, expected in reference.run("detect", {"image": picture}).items():
            np.testing.assert_array_equal(outputs[name], expected)
    engine = backend.test_engines["detect"]
    assert engine.runs == 6  # one to prepare
    assert fake.fake_live() == live  # it was captured when it was loaded, and is only replayed
    # A GPU that shares the host's memory writes outputs into it, and so needs none of its own.
    tensors = [*engine.inputs.values(), *(engine.outputs.values() if own_memory else ())]
    assert backend.device_memory == engine.memory + sum(tensor.size for tensor in tensors)


@pytest.mark.parametrize(
    "call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"]
)
def test_an_engine_that_cannot_be_captured_is_launched_plainly(
    tiny_bundle, backend_of, fake, call
):
    fake.fake_fail(call.encode(), 0, 900)
    backend = backend_of(tiny_bundle)
    reference = OnnxRuntimeBackend(tiny_bundle, threads=1)
    for picture in pictures(3):
        for name, expected in reference.run("detect", {"image": picture}).items():
            got = backend.run("detect", {"image": picture})[name]
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("cameras", [1, 2, 5])
@pytest.mark.parametrize("warp", ["learned", "dis", "none"])
def test_interleaved_cameras_get_the_results_of_onnx_runtime(
    tiny_learned_bundle, backend_of, fake, cameras, warp
):
    if cameras == 2:
        fake.fake_own_memory()
    backend = backend_of(tiny_learned_bundle)
    description = tiny_learned_bundle.description
    config = KeyframeConfig(warp=warp, keyframe_interval=3, change_threshold=1.0)
    ours = Segmenter(backend, description)
    theirs = Segmenter(OnnxRuntimeBackend(tiny_learned_bundle, threads=1), description)
    streams = [(ours.stream(config), theirs.stream(config)) for _ in range(cameras)]
    sizes, partial = [], 0
    for number, picture in enumerate(pictures(36)):
        mine, reference = streams[(number * 7) % cameras]
        got, expected = mine.detect(picture[0]), reference.detect(picture[0])
        assert got.frame_type == expected.frame_type
        partial += got.frame_type == "partial"
        np.testing.assert_array_equal(got.boxes, expected.boxes)
        for i in range(len(expected)):
            np.testing.assert_array_equal(got[i].mask, expected[i].mask)
        sizes.append(backend.device_memory)
    assert partial > 10
    assert sizes[-1] == sizes[3 * cameras]  # one set of features for each camera, and a next one


@pytest.mark.parametrize("warp", ["learned", "dis", "none"])
def test_steps_of_two_images_interleave_without_mixing(tiny_learned_bundle, backend_of, warp):
    """The driver does nothing between `submit` and `fetch`, so buffers must not change meanwhile.

    The next image is of another camera or of the same one.
    """
    backend = backend_of(tiny_learned_bundle)
    description = tiny_learned_bundle.description
    config = KeyframeConfig(warp=warp, keyframe_interval=3, change_threshold=1.0)
    ours = Segmenter(backend, description)
    theirs = Segmenter(OnnxRuntimeBackend(tiny_learned_bundle, threads=1), description)
    streams = [(ours.stream(config), theirs.stream(config)) for _ in range(3)]
    cameras = np.random.default_rng(2).integers(0, 3, 30)
    expected = [
        streams[c][1].detect(picture[0]) for c, picture in zip(cameras, pictures(30), strict=True)
    ]
    found, current = [], None
    for camera, picture in [*zip(cameras, pictures(30), strict=True), (0, None)]:
        stream = streams[camera][0]
        following = None if picture is None else (stream, stream.prepare(picture[0]))
        if current is not None:
            current[0].fetch(current[1])
        if following is not None:
            stream.submit(following[1])
        if current is not None:
            found.append(current[0].finish(current[1]))
        current = following
    assert {d.frame_type for d in found} == {"keyframe", "partial"}
    for got, wanted in zip(found, expected, strict=True):
        assert got.frame_type == wanted.frame_type
        np.testing.assert_array_equal(got.boxes, wanted.boxes)
        for i in range(len(wanted)):
            np.testing.assert_array_equal(got[i].mask, wanted[i].mask)
        assert 0 < got.timings["inference"] < 60_000  # between two events of the driver


def test_features_for_another_graph_stay_in_the_gpus_own_memory(tiny_learned_bundle, backend_of):
    """Where memory is shared, only what the host alone reads is written into host arrays."""
    backend = backend_of(tiny_learned_bundle)
    engines = backend.test_engines.values()
    used = {name for engine in engines for name in engine.inputs}
    features = [t for e in engines for name, t in e.outputs.items() if name in used]
    assert len(features) >= 2
    inputs = [tensor for engine in engines for tensor in engine.inputs.values()]
    assert backend.device_memory == 64 + sum(tensor.size for tensor in (*inputs, *features))


def test_an_unfetched_run_survives_the_next_one(tiny_bundle, backend_of):
    backend = backend_of(tiny_bundle)
    reference = OnnxRuntimeBackend(tiny_bundle, threads=1)
    runs = [backend.submit("detect", {"image": picture}) for picture in pictures(4)]
    for run, picture in reversed(list(zip(runs, pictures(4), strict=True))):
        expected = reference.run("detect", {"image": picture})
        np.testing.assert_array_equal(run.fetch()["prototypes"], expected["prototypes"])


def test_the_error_of_a_run_is_raised_where_it_is_fetched(tiny_bundle, backend_of, fake):
    backend = backend_of(tiny_bundle)
    first, second = pictures(2)
    broken = backend.submit("detect", {"image": first})
    fake.fake_fail(b"cuStreamSynchronize", 0, 1)
    good = backend.submit("detect", {"image": second})
    expected = OnnxRuntimeBackend(tiny_bundle, threads=1).run("detect", {"image": second})
    np.testing.assert_array_equal(good.fetch()["prototypes"], expected["prototypes"])
    for _ in range(2):
        with pytest.raises(BackendError, match="cuStreamSynchronize: fake failure"):
            broken.fetch()


def features_that_depend_on_the_image(onnx, batch):
    """Make the mean of a keyframe its feature, which the other graph returns doubled."""
    from onnx import TensorProto, helper

    def model(nodes, inputs, outputs):
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
        )
        version = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=version, ir_version=8).SerializeToString()

    image = ("image", TensorProto.UINT8, [batch, 32, 40, 3])
    feature = ("x4", TensorProto.FLOAT, [batch, 1, 1, 3])
    result = ("answer", TensorProto.FLOAT, [batch, 1, 1, 3])
    cast = helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)
    mean = helper.make_node("ReduceMean", ["float"], ["x4"], axes=[1, 2])
    double = helper.make_node("Add", ["x4", "x4"], ["twice"])
    picture = helper.make_node("ReduceMax", ["float"], ["largest"], axes=[1, 2])
    total = helper.make_node("Add", ["twice", "largest"], ["answer"])
    return {
        "keyframe": model([cast, mean], [image], [feature]),
        "non_keyframe_flow": model([cast, double, picture, total], [image, feature], [result]),
    }


def bundle_of_features(folder, *, batch=1):
    """Return a bundle of two graphs, which make no network."""
    from yolact_ros.runtime.backends.onnxruntime import describe_graph
    from yolact_ros.runtime.bundle import GraphInfo

    contents = features_that_depend_on_the_image(pytest.importorskip("onnx"), batch)
    return types.SimpleNamespace(
        folder=folder,
        description=ModelDescription(
            TINY, "with_nms", 10, identity="0123456789ab", warps=("none",), batch=batch
        ),
        graphs={
            name: GraphInfo(folder / f"{name}.onnx", *describe_graph(content), "0" * 64)
            for name, content in contents.items()
        },
        read_graph=contents.__getitem__,
    )


def answer(picture, keyframe):
    """Compute what `non_keyframe_flow` of `bundle_of_features` returns."""
    mean = keyframe.astype(np.float32).mean(axis=(1, 2), dtype=np.float64)
    return 2 * mean.ravel() + picture.max(axis=(0, 1, 2))


def test_kept_features_of_five_cameras_do_not_mix(tmp_path, backend_of):
    backend, held = backend_of(bundle_of_features(tmp_path)), {}
    random = np.random.default_rng(1)
    for number, picture in enumerate(pictures(60)):
        camera = int(random.integers(5))
        if camera not in held or number % 4 == 0:
            kept = backend.run("keyframe", {"image": picture}, keep=["x4", "absent"])["x4"]
            assert [type(one) for one in kept] == [DeviceArray]
            held[camera] = kept, picture
            continue
        feature, keyframe = held[camera]
        inputs = {"image": picture, "x4": feature}
        got = backend.run("non_keyframe_flow", inputs)["answer"]
        np.testing.assert_allclose(got.ravel(), answer(picture, keyframe), rtol=1e-5)


def test_kept_features_of_cameras_that_share_runs_do_not_mix(tmp_path, backend_of):
    """Runs take up to three of five cameras; each camera keeps its own part of a shared run."""
    bundle = bundle_of_features(tmp_path, batch=3)
    backend, held, sizes = backend_of(bundle), {}, []
    network = Network(backend, bundle.description)
    random, more = np.random.default_rng(1), iter(pictures(180))
    for number in range(60):
        cameras = random.permutation(5)[: random.integers(1, 4)]
        seen = {camera: next(more) for camera in cameras}
        if number % 4 == 0 or any(camera not in held for camera in cameras):
            runs = network.submit("keyframe", [{"image": seen[camera]} for camera in cameras])
            for camera, run in zip(cameras, runs, strict=True):
                (feature,) = kept = run.fetch()["x4"]
                assert isinstance(feature, DeviceArray) and feature.tensor.shape == (1, 1, 1, 3)
                held[camera] = kept, seen[camera]
        else:
            inputs = [{"image": seen[camera], "x4": held[camera][0]} for camera in cameras]
            runs = network.submit("non_keyframe_flow", inputs)
            for camera, run in zip(cameras, runs, strict=True):
                expected = answer(seen[camera], held[camera][1])
                np.testing.assert_allclose(run.fetch()["answer"].ravel(), expected, rtol=1e-5)
        sizes.append(backend.device_memory)
    assert sizes[-1] == sizes[20]  # features that no camera holds are reused


def test_runs_of_two_graphs_wait_for_each_other_only_on_the_gpu(tmp_path, backend_of):
    """The driver does nothing before `fetch`, so neither `submit` may wait for the other run."""
    backend = backend_of(bundle_of_features(tmp_path))
    first, second, third = pictures(3)
    kept = backend.run("keyframe", {"image": first}, keep=["x4"])["x4"]
    runs = [engine.runs for engine in backend.test_engines.values()]
    partial = backend.submit("non_keyframe_flow", {"image": second, "x4": kept})
    del kept  # its memory may be reused at once, after what is queued
    whole = backend.submit("keyframe", {"image": third}, keep=["x4"])
    assert [engine.runs for engine in backend.test_engines.values()] == runs
    features = whole.fetch()
    found = partial.fetch()["answer"]
    np.testing.assert_allclose(found.ravel(), answer(second, first), rtol=1e-5)
    found = backend.run("non_keyframe_flow", {"image": first, **features})["answer"]
    np.testing.assert_allclose(found.ravel(), answer(first, third), rtol=1e-5)
    assert partial.seconds > 0 and whole.seconds > 0


def test_features_of_too_few_images_are_refused(tmp_path, backend_of):
    backend = backend_of(bundle_of_features(tmp_path, batch=2))
    image = np.concatenate(pictures(2))
    kept = backend.run("keyframe", {"image": image}, keep=["x4"])["x4"]
    for wrong in (kept[:1], []):
        with pytest.raises(
            BackendError, match=r"'x4' of graph .* shape .*expected \(2, 1, 1, 3\)"
        ):
            backend.run("non_keyframe_flow", {"image": image, "x4": wrong})


@pytest.mark.parametrize(
    "call, after, message",
    [
        ("cuMemAlloc_v2", 0, r"cuMemAlloc_v2: out of memory \(error 2\)"),
        ("cuMemAlloc_v2", 1, r"cuMemAlloc_v2: out of memory"),
        ("cuMemHostGetDevicePointer_v2", 1, r"cuMemHostGetDevicePointer_v2: out of memory"),
        ("cuMemHostAlloc", 2, r"cuMemHostAlloc: out of memory"),
    ],
)
def test_an_allocation_that_fails_leaks_nothing(
    tiny_bundle, backend_of, fake, call, after, message
):
    fake.fake_fail(call.encode(), after, 2)
    with pytest.raises(BackendError, match=message):
        backend_of(tiny_bundle)
    assert fake.fake_live() == 0


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"])
def test_the_run_after_a_failed_one_is_correct(tiny_bundle, backend_of, fake, call):
    fake.fake_own_memory()  # with outputs to copy
    backend = backend_of(tiny_bundle)
    first, second = pictures(2)
    fake.fake_fail(call.encode(), 0, 1)
    with pytest.raises(BackendError, match=f"{call}: fake failure"):
        backend.run("detect", {"image": first})
    expected = OnnxRuntimeBackend(tiny_bundle, threads=1).run("detect", {"image": second})
    got = backend.run("detect", {"image": second})
    np.testing.assert_array_equal(got["prototypes"], expected["prototypes"])


def test_a_backend_can_be_closed_while_work_is_queued(tiny_bundle, backend_of):
    backend = backend_of(tiny_bundle)
    loaded = backend._graphs["detect"]
    loaded.launch(loaded.check({"image": pictures(1)[0]}), {})
    runs = backend.test_engines["detect"].runs
    backend.close()
    assert backend.test_engines["detect"].runs == runs + 1  # it was waited for
    with pytest.raises(BackendError, match="the graph 'detect'; it has: none: it was closed"):
        backend.run("detect", {"image": pictures(1)[0]})


def test_the_message_of_a_broken_context_asks_for_a_restart(tiny_bundle, backend_of, fake):
    backend = backend_of(tiny_bundle)
    fake.fake_fail(b"cuGraphLaunch", 0, 700)
    with pytest.raises(BackendError, match=r"CUDA 12\.6.*error 700.*restart it"):
        backend.run("detect", {"image": pictures(1)[0]})


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "expects image; it received nothing"),
        ({"image": np.zeros((1, 32, 40, 3), np.float32)}, "type float32; expected .* uint8"),
        ({"image": np.zeros((1, 40, 32, 3), np.uint8)}, r"shape \(1, 40, 32, 3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tiny_bundle, backend_of, inputs, message):
    with pytest.raises(BackendError, match=message):
        backend_of(tiny_bundle).run("detect", inputs)


def test_a_graph_that_the_bundle_lacks_is_named(tiny_bundle, backend_of):
    with pytest.raises(BackendError, match="the graph 'keyframe'; it has: detect"):
        backend_of(tiny_bundle).run("keyframe", {})


def test_a_bundle_opens_on_the_named_gpu_with_a_timing_cache_beside_its_engines(
    tiny_bundle, fake, monkeypatch, tmp_path
):
    steps, runs_before_saving = [], []

    def open_engine(bundle, graph, *, gpu, policy, settings, **_):
        steps.append((graph, gpu.index, policy, settings))
        return types.SimpleNamespace(content=b"engine", path=tmp_path / f"{graph}.engine")

    class LoadedEngine(OnnxEngine):
        def __init__(self, library, content, *, graph, path):
            assert (content, path) == (b"engine", tmp_path / f"{graph}.engine")
            super().__init__(tiny_bundle, graph, fake)

        def save_kernels(self):
            runs_before_saving.append(self.runs)

    library = TensorRt("tensorrt", "10.3.0", None)
    for name, value in {
        "check_target": lambda bundle: None,
        "import_tensorrt": lambda name: library,
        "open_engine": open_engine,
        "TensorRtEngine": LoadedEngine,
    }.items():
        monkeypatch.setattr(backend_module, name, value)
    backend = backend_module.open_tensorrt(tiny_bundle, device=1, build="never")
    expected = BuildSettings.for_gpu(find_gpu(1), library, tiny_bundle.folder)
    assert expected.timing_cache.parent == tiny_bundle.folder
    ((graph, index, policy, used),) = steps
    assert (graph, index, policy) == ("detect", 1, "never")
    assert used.timing_cache == expected.timing_cache and used.workspace_mib
    assert runs_before_saving == [1]  # kernels are stored after the first run, which compiles them
    backend.close()
