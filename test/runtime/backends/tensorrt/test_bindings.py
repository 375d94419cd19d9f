"""NVIDIA's own wheels contain everything that the code uses of TensorRT and of the driver.

The Python bindings of several versions of TensorRT are real; the libraries that they load are
stubs whose functions return nothing, as on a machine where CUDA does not start. Of the driver
there is the header.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from yolact_ros.runtime.backends.tensorrt import cuda
from yolact_ros.runtime.backends.tensorrt import driver as gpu
from yolact_ros.runtime.backends.tensorrt.driver import SIGNATURES, Address, Handle

# JetPack 6.1 and 6.2, JetPack 7, and the last version of each major one.
VERSIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
FOLDER = Path(sys.prefix) / "wheels_of_nvidia"  # kept between runs
# With cuda.h: of JetPack 6.1 and 6.2, and of JetPack 7.
HEADERS = ("nvidia-cuda-runtime-cu12==12.6.77", "nvidia-cuda-runtime==13.0.96")
REPOSITORY = Path(__file__).resolve().parents[4]

STUB = """
void *createInferBuilder_INTERNAL(void *log, int v) { return 0; }
void *createInferRefitter_INTERNAL(void *e, void *log, int v) { return 0; }
void *createInferRuntime_INTERNAL(void *log, int v) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *r, void *log, int v) { return 0; }
void *createNvOnnxParser_INTERNAL(void *n, void *log, int v) { return 0; }
void *getBuilderPluginRegistry(int c) { return 0; }
void *getPluginRegistry(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
_Bool initLibNvInferPlugins(void *log, const char *name) { return 1; }
"""

PROBE = """
import logging, sys
import tensorrt_bindings as trt
sys.modules["tensorrt"] = trt
from types import SimpleNamespace
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.build import build_engine, network_flags
from yolact_ros.runtime.backends.tensorrt.engine import TensorRtEngine
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt, shared_logger
from yolact_ros.runtime.backends.tensorrt.build import set_monitor

library = import_tensorrt("tensorrt")
assert library.version.startswith(sys.argv[1].rsplit(".", 1)[0][:5]), library.version
for owner, names in {
    trt: "nptype OnnxParser Runtime Builder",
    trt.LayerType: "GRID_SAMPLE",
    trt.IGridSampleLayer: "interpolation_mode type",
    trt.InterpolationMode: "LINEAR",
    trt.BuilderFlag: "TF32",
    trt.MemoryPoolType: "WORKSPACE",
    trt.IBuilderConfig: "clear_flag set_memory_pool_limit create_timing_cache set_timing_cache "
    "get_timing_cache progress_monitor",
    trt.ITimingCache: "serialize",
    trt.Builder: "create_network create_builder_config build_serialized_network",
    trt.INetworkDefinition: "num_layers get_layer",
    trt.OnnxParser: "parse num_errors get_error",
    trt.ParserError: "node_name node_operator desc",
    trt.Runtime: "deserialize_cuda_engine",
    trt.ICudaEngine: "create_execution_context num_io_tensors get_tensor_name get_tensor_shape "
    "get_tensor_dtype get_tensor_mode device_memory_size_v2",
    trt.TensorIOMode: "INPUT",
    trt.ExecutionContextAllocationStrategy: "USER_MANAGED",
    trt.IExecutionContext: "set_tensor_address execute_async_v3 set_device_memory",
    trt.ILogger.Severity: "ERROR WARNING",
}.items():
    for name in names.split():
        assert hasattr(owner, name), f"{owner.__name__}.{name}"
assert "ExecutionContextAllocationStrategy" in trt.ICudaEngine.create_execution_context.__doc__
assert network_flags(trt) >= 0
types = [trt.nptype(getattr(trt.DataType, n)).__name__ for n in "UINT8 INT32 HALF FLOAT".split()]
assert types == ["uint8", "int32", "float16", "float32"], types

log = shared_logger(trt)
log.log(trt.ILogger.Severity.ERROR, "an error")
logged, handler = [], logging.Handler()
handler.emit = logged.append
logging.getLogger("yolact_ros").addHandler(handler)
log.log(trt.ILogger.Severity.WARNING, "another model of device")
log.log(trt.ILogger.Severity.INFO, "a note")
assert log.take_errors() == ["an error"]
assert [(r.levelname, r.getMessage()) for r in logged] == [("WARNING", "another model of device")]

config, seen = SimpleNamespace(), []
monitor = set_monitor(config, trt, lambda fraction: seen.append(fraction) or fraction < 0.5)
assert isinstance(config.progress_monitor, trt.IProgressMonitor)
monitor.phase_start("all", None, 4)
assert monitor.step_complete("all", 0) and not monitor.step_complete("all", 1)
assert seen == [0.25, 0.5] and monitor.stopped

for action in (
    lambda: build_engine(b"", "detect", library=library),
    lambda: TensorRtEngine(library, b"", graph="detect"),
):
    try:
        action()
    except BackendError as error:
        assert "cannot start" in str(error), error
    else:
        raise AssertionError("a library that does not start was not noticed")
print("as expected")
"""


@pytest.fixture(scope="module")
def compiler():
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        pytest.skip("needs a C compiler")
    return found


def installed(wheel):
    """Install a wheel without its dependencies and return its folder."""
    folder = FOLDER / wheel
    if not folder.is_dir():
        FOLDER.mkdir(exist_ok=True)
        scratch = tempfile.mkdtemp(dir=FOLDER)
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
        result = subprocess.run(
            [*command, "--target", scratch, wheel], capture_output=True, text=True
        )
        if result.returncode:
            shutil.rmtree(scratch)
            pytest.skip(f"{wheel} cannot be installed: {result.stderr.strip().splitlines()[-1]}")
        os.replace(scratch, folder)
    return folder


@pytest.fixture(scope="module")
def stubs(tmp_path_factory, compiler):
    """Write a folder with stubs of TensorRT's libraries."""
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "stub.c").write_text(STUB)
    for library in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        for major in (10, 11):
            path = folder / f"lib{library}.so.{major}"
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-o", path, folder / "stub.c"], check=True
            )
    return folder


@pytest.mark.parametrize("version", VERSIONS)
def test_the_bindings_have_everything_that_is_used(version, stubs):
    folder = installed(f"tensorrt-cu12-bindings=={version}")
    paths = os.pathsep.join(map(str, (folder, REPOSITORY)))
    result = subprocess.run(
        [sys.executable, "-c", PROBE, version],
        env={**os.environ, "PYTHONPATH": paths, "LD_LIBRARY_PATH": str(stubs)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == "as expected\n"


def kind_of(parameter):
    """Return the ctypes type of a parameter of a C declaration."""
    words = parameter.replace("const", "").split()[:-1]
    if "*" in parameter or words[0] in (
        "CUcontext",
        "CUstream",
        "CUevent",
        "CUgraph",
        "CUgraphExec",
    ):
        return Handle
    kinds = {"CUdeviceptr": Address, "size_t": ctypes.c_size_t, "unsigned int": ctypes.c_uint}
    kinds["unsigned long long"] = ctypes.c_ulonglong
    return kinds.get(" ".join(words), ctypes.c_int)  # int, and enumerations


@pytest.mark.parametrize("wheel", HEADERS)
def test_calls_of_the_driver_are_those_of_its_header(wheel, compiler):
    (header,) = installed(wheel).rglob("include/cuda.h")
    values = {
        "CU_STREAM_NON_BLOCKING": cuda._NON_BLOCKING,
        "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL": cuda._THREAD_LOCAL,
        "CU_CTX_SCHED_BLOCKING_SYNC": cuda._BLOCKING_SYNC,
        "CU_MEMHOSTALLOC_DEVICEMAP": cuda._DEVICE_MAP,
        "CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY": cuda._CAN_MAP,
        "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": gpu._MULTIPROCESSORS,
        "CU_DEVICE_ATTRIBUTE_INTEGRATED": gpu.INTEGRATED,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": gpu._CAPABILITY_MAJOR,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": gpu._CAPABILITY_MINOR,
    }
    lines = [f'#include "{header}"']
    lines += [f'_Static_assert({name} == {value}, "");' for name, value in values.items()]
    command = [compiler, "-xc", "-D__CUDA_API_VERSION_INTERNAL", "-"]
    source = "\n".join(lines)
    subprocess.run([*command, "-fsyntax-only"], input=source, text=True, check=True)
    result = subprocess.run(
        [*command, "-E", "-P"], input=source, text=True, check=True, capture_output=True
    )
    declared = dict(re.findall(r"CUresult\s+(\w+)\(([^)]*)\);", result.stdout))
    for name, kinds in SIGNATURES.items():
        assert tuple(map(kind_of, declared[name].split(","))) == kinds, name
