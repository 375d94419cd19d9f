"""A loaded engine makes the right calls to a strict fake of TensorRT's Python module."""

from __future__ import annotations

import types
from enum import Enum

import numpy as np
import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.engine import EngineTensor, KernelCache, TensorRtEngine
from yolact_ros.runtime.backends.tensorrt.library import TensorRt

Strategy = Enum("Strategy", "STATIC USER_MANAGED")
Mode = Enum("Mode", "INPUT OUTPUT")


class Severity(Enum):
    ERROR, WARNING, INFO = range(3)


class Logger:
    Severity = Severity

    def __init__(self):
        pass


class RuntimeCache:
    """Holds the kernels of one GPU; a run compiles one."""

    def __init__(self):
        self.kernels = b""

    def deserialize(self, content):
        if not content.startswith(b"this GPU"):
            return False
        self.kernels = content
        return True

    def serialize(self):
        return self.kernels


class RuntimeConfig:
    def __init__(self):
        self.cache = self.strategy = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return RuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class Context:
    refused = ""

    def __init__(self, config):
        self.config = config
        self.compiled = 0

    def set_device_memory(self, address, size):
        assert size == 64

    def set_tensor_address(self, name, address):
        return name != self.refused

    def execute_async_v3(self, stream):
        cache = getattr(self.config, "cache", None)
        if cache is not None and not cache.kernels:
            cache.kernels = b"this GPU: kernel"
            self.compiled += 1
        return True


class CudaEngine:
    num_io_tensors = 2
    device_memory_size_v2 = 64

    def create_runtime_config(self):
        return RuntimeConfig()

    def create_execution_context(self, given):
        strategy = given.strategy if isinstance(given, RuntimeConfig) else given
        assert strategy is Strategy.USER_MANAGED
        return Context(given)

    def get_tensor_name(self, index):
        return ("image", "scores")[index]

    def get_tensor_shape(self, name):
        return (1, 4)

    def get_tensor_dtype(self, name):
        return np.float32

    def get_tensor_mode(self, name):
        return Mode.INPUT if name == "image" else Mode.OUTPUT


def library(name):
    module = types.ModuleType("tensorrt")
    vars(module).update(
        ILogger=Logger,
        Runtime=lambda log: types.SimpleNamespace(deserialize_cuda_engine=lambda _: CudaEngine()),
        ExecutionContextAllocationStrategy=Strategy,
        TensorIOMode=Mode,
        nptype=lambda kind: kind,
    )
    return TensorRt(name, "1.7.1", module)


def test_tensors_are_read_from_the_engine_and_bound():
    engine = TensorRtEngine(library("tensorrt"), b"", graph="detect")
    tensor = EngineTensor((1, 4), np.dtype(np.float32))
    assert (engine.inputs, engine.outputs) == ({"image": tensor}, {"scores": tensor})
    assert (engine.memory, tensor.size) == (64, 16)
    engine.bind({"image": 1024, "scores": 2048}, 4096)
    engine.enqueue(1)


def test_an_address_that_tensorrt_refuses_is_an_error(monkeypatch):
    engine = TensorRtEngine(library("tensorrt"), b"", graph="detect")
    monkeypatch.setattr(Context, "refused", "scores")
    with pytest.raises(
        BackendError, match="rejects the address of 'scores' in the graph 'detect'"
    ):
        engine.bind({"image": 1024, "scores": 2048}, 4096)


def test_kernels_are_compiled_once_for_all_starts(tmp_path):
    path = tmp_path / "detect.engine"
    compiled = []
    for _ in range(2):
        engine = TensorRtEngine(library("tensorrt_rtx"), b"", graph="detect", path=path)
        engine.enqueue(1)
        engine.save_kernels()
        compiled.append(engine._context.compiled)
    assert compiled == [1, 0]
    assert [file.name for file in tmp_path.iterdir()] == ["detect.engine.kernels"]


@pytest.mark.parametrize("damage", ["cut", "altered", "another GPU", "a folder"])
def test_kernels_that_cannot_be_used_are_compiled_again(tmp_path, damage):
    path = tmp_path / "detect.engine"
    kernels = tmp_path / "detect.engine.kernels"
    if damage == "a folder":
        kernels.mkdir()
    else:
        first = RuntimeConfig()
        cache = KernelCache(first, path)
        first.cache.kernels = b"that GPU" if damage == "another GPU" else b"this GPU: kernel"
        cache.save()
        content = kernels.read_bytes()
        if damage == "cut":
            kernels.write_bytes(content[:-1])
        if damage == "altered":
            kernels.write_bytes(content[:-1] + b"x")
    engine = TensorRtEngine(library("tensorrt_rtx"), b"", graph="detect", path=path)
    engine.enqueue(1)
    engine.save_kernels()
    assert engine._context.compiled == 1


def test_the_real_bindings_of_tensorrt_rtx_have_everything_that_is_used():
    trt = pytest.importorskip("tensorrt_rtx")
    names = {
        trt.ICudaEngine: "create_runtime_config create_execution_context device_memory_size_v2",
        trt.IExecutionContext: "set_device_memory",
        trt.IRuntimeConfig: "create_runtime_cache set_runtime_cache "
        "set_execution_context_allocation_strategy",
        trt.IRuntimeCache: "serialize deserialize",
    }
    for owner, members in names.items():
        for member in members.split():
            assert hasattr(owner, member), f"{owner.__name__}.{member}"
    assert "runtime_config" in trt.ICudaEngine.create_execution_context.__doc__
