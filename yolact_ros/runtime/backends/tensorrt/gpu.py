"""What the NVIDIA driver says of the machine's GPUs; needs no library but the driver's own."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from yolact_ros.errors import BackendError

DRIVER = "libcuda.so.1"

# CUdevice_attribute of cuda.h.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: e.g. `NVIDIA GeForce RTX 4090`, or `Orin`.
        compute_capability: e.g. `8.9`.
    """

    name: str
    compute_capability: str


def find_gpu(index: int = 0) -> Gpu:
    """Ask the driver for one GPU; CUDA_VISIBLE_DEVICES counts.

    Raises:
        BackendError: there is no driver, no GPU, or none of this index.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise BackendError(
            f"No GPU: the NVIDIA driver's {DRIVER} cannot be loaded ({error}). Install the "
            "driver; in a container, start it with the NVIDIA runtime (--gpus all)."
        ) from error
    _call(driver, "cuInit", 0)
    count, device = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if not 0 <= index < count.value:
        raise BackendError(f"There is no GPU {index}; the driver shows {count.value}, from 0 on.")
    _call(driver, "cuDeviceGet", ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    parts = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        parts.append(str(value.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(parts))


def _call(driver: Any, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        words = (text.value or b"unknown error").decode(errors="replace")
        raise BackendError(f"The NVIDIA driver failed in {function}: {words} (error {status}).")
