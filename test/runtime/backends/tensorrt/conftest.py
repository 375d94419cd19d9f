"""Provide the strict fake of the NVIDIA driver."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
from pathlib import Path

import pytest

from yolact_ros.runtime.backends.tensorrt import driver as driver_module

SOURCE = Path(__file__).resolve().parents[3] / "support" / "fake_cuda.c"
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Provide a fresh fake driver; at the end, nothing may be allocated and no rule violated."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    path = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", path, SOURCE], check=True)
    monkeypatch.setattr(driver_module, "DRIVER", str(path))
    library = ctypes.CDLL(str(path))
    library.fake_message.restype = ctypes.c_char_p
    library.fake_fail.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    library.fake_is_device.argtypes = [ctypes.c_uint64, ctypes.c_size_t]
    library.fake_host_function.argtypes = [ctypes.c_void_p, CALLBACK, ctypes.c_void_p]
    yield library
    gc.collect()
    assert library.fake_violations() == 0, library.fake_message()
    assert library.fake_live() == 0
