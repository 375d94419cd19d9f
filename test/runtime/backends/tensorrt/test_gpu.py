"""The selected GPU is the one that is used, and its description is correct."""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt import cache as memory_module
from yolact_ros.runtime.backends.tensorrt import cache as open_module
from yolact_ros.runtime.backends.tensorrt import driver as driver_module
from yolact_ros.runtime.backends.tensorrt import driver as gpu_module
from yolact_ros.runtime.backends.tensorrt.backend import TensorRtBackend
from yolact_ros.runtime.backends.tensorrt.cache import logged_peak_memory
from yolact_ros.runtime.backends.tensorrt.cuda import Cuda, current_gpu
from yolact_ros.runtime.backends.tensorrt.driver import Gpu, default_workspace, find_gpu
from yolact_ros.runtime.backends.tensorrt.engine import EngineTensor
from yolact_ros.runtime.backends.tensorrt.library import TensorRt


def test_a_missing_gpu_is_named(fake):
    with pytest.raises(BackendError, match="no GPU 2; the driver reports 2, from 0 on"):
        Cuda(2)


@pytest.mark.parametrize("cores, flags", [(6, 4), (7, 0)])
def test_a_waiting_thread_sleeps_if_there_are_few_cores(fake, monkeypatch, cores, flags):
    """4 is CU_CTX_SCHED_BLOCKING_SYNC; otherwise the driver spins, which responds sooner."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    cuda = Cuda()
    assert fake.fake_context_flags() == flags
    second = Cuda()  # the context is set up already, which is no error
    second.close()
    cuda.close()


def test_work_of_another_thread_goes_to_the_gpu_that_was_named(fake):
    """A new thread has no current GPU, and the runtime would use GPU 0."""
    seen = []

    def work():
        with current_gpu(1):
            seen.append(fake.fake_current_device())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]


def test_an_engine_is_built_on_the_gpu_that_it_is_for(fake, tiny_bundle, monkeypatch, caplog):
    caplog.set_level("INFO", logger=memory_module.__name__)
    description = replace(tiny_bundle.description, target="tensorrt")
    bundle = replace(tiny_bundle, description=description)
    built_on = []

    def build(*_, **__):
        built_on.append(fake.fake_current_device())
        return b"engine"

    monkeypatch.setattr(open_module, "build_engine", build)
    work = partial(
        open_module.open_engine,
        bundle,
        "detect",
        library=TensorRt("tensorrt", "10.3.0", None),
        gpu=find_gpu(1),
    )
    thread = threading.Thread(target=work)  # as `yolact engine` does
    thread.start()
    thread.join()
    assert built_on == [1]
    assert "Building the engine of 'detect' took up to 0 MiB" in caplog.text


def test_the_peak_memory_of_a_build_is_logged(fake, caplog, monkeypatch):
    """A build takes 30 MiB more for a while; 24 MiB were taken before it."""
    caplog.set_level("INFO", logger=memory_module.__name__)
    monkeypatch.setattr(memory_module, "SAMPLE_SECONDS", 0.001)
    seen = threading.Event()
    sampled = memory_module.free_memory

    def free(gpu):
        value = sampled(gpu)
        seen.set()
        return value

    def sampled_again():
        for _ in range(2):  # one sample may have begun before
            seen.clear()
            assert seen.wait(30)

    monkeypatch.setattr(memory_module, "free_memory", free)
    with current_gpu(0):
        driver = driver_module.Driver()
        before = driver.value("cuMemAlloc_v2", ctypes.c_uint64, 24 << 20)
        with logged_peak_memory(Gpu("RTX 4090", "8.9", 128, False, 0), "Building the engine"):
            sampled_again()
            taken = driver.value("cuMemAlloc_v2", ctypes.c_uint64, 30 << 20)
            sampled_again()
            driver.call("cuMemFree_v2", taken)
        driver.call("cuMemFree_v2", before)
    assert "Building the engine took up to 30 MiB; 1000 MiB were free before." in caplog.messages


def test_a_build_goes_on_where_memory_cannot_be_read(fake, caplog, monkeypatch):
    caplog.set_level("INFO", logger=memory_module.__name__)
    monkeypatch.setattr(gpu_module, "MEMORY", Path("/nonexistent"))
    with logged_peak_memory(Gpu("Orin", "8.7", 8, True, 1), "Building the engine"):
        pass
    fake.fake_fail(b"cuMemGetInfo_v2", 0, 999)
    with logged_peak_memory(Gpu("RTX 4090", "8.9", 128, False, 0), "Building the engine"):
        pass
    assert not caplog.messages


def test_engines_are_freed_on_their_own_gpu(fake, tiny_bundle):
    """This holds whichever thread closes the backend."""
    image = EngineTensor((1, 32, 40, 3), np.dtype(np.uint8))
    freed_on = []

    class IdleEngine:
        inputs, outputs, memory = {"image": image}, {}, 64

        def bind(self, addresses, workspace):
            pass

        def enqueue(self, stream):
            pass

        def __del__(self):
            freed_on.append(fake.fake_current_device())

    backend = TensorRtBackend(tiny_bundle, {"detect": IdleEngine()}, Cuda(1))
    thread = threading.Thread(target=backend.close)
    thread.start()
    thread.join()
    assert freed_on == [1]


def test_what_an_engine_depends_on_is_read_from_the_driver(fake, tmp_path, monkeypatch):
    board = tmp_path / "model"
    board.write_bytes(b"NVIDIA Jetson Orin NX\0")
    monkeypatch.setattr(gpu_module, "BOARD", board)
    assert find_gpu(1) == Gpu("Orin (NVIDIA Jetson Orin NX)", "8.7", 8, True, 1)
    board.unlink()
    assert find_gpu().name == "Orin"


def test_a_build_leaves_the_cpu_half_of_the_memory_that_they_share(tmp_path, monkeypatch):
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 8000000 kB\nMemAvailable:    4194304 kB\n")
    monkeypatch.setattr(gpu_module, "MEMORY", memory)
    assert default_workspace(Gpu("Orin", "8.7", 8, True)) == 2048
    assert default_workspace(Gpu("RTX 4090", "8.9", 128, False)) is None
    memory.write_text("")
    assert default_workspace(Gpu("Orin", "8.7", 8, True)) is None


def test_a_machine_without_a_driver_gets_an_error(monkeypatch):
    monkeypatch.setattr(driver_module, "DRIVER", "libno-such-driver.so.1")
    with pytest.raises(BackendError, match="No GPU.*libno-such-driver"):
        Cuda()
