"""Describe the properties of GPUs that engines depend on."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from yolact_ros.runtime.backends.tensorrt.driver import Driver

# CUdevice_attribute of cuda.h.
_MULTIPROCESSORS, INTEGRATED = 16, 18
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76

# A Jetson's name; its GPU is called `Orin` on every Orin module.
BOARD = Path("/proc/device-tree/model")
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Gpu:
    """Describes one GPU.

    Attributes:
        name: e.g. `NVIDIA GeForce RTX 4090`, or `Orin (NVIDIA Jetson AGX Orin Developer Kit)`.
        compute_capability: e.g. `8.9`.
        multiprocessors: number that is switched on, which on a Jetson depends on the power mode; 0
            for engines that are built ahead of time, which run on any number.
        integrated: whether it shares the memory of the CPU.
        index: of the GPU in this machine; None for one of another machine.
    """

    name: str
    compute_capability: str
    multiprocessors: int = 0
    integrated: bool = False
    index: int | None = None


def find_gpu(index: int = 0) -> Gpu:
    """Return one GPU, as the driver describes it; the index respects CUDA_VISIBLE_DEVICES.

    Raises:
        BackendError: there is no driver, no GPU, or none of this index.
    """
    driver = Driver()
    device = driver.device(index)
    name = ctypes.create_string_buffer(256)
    driver.call("cuDeviceGetName", name, len(name), device)
    major, minor, multiprocessors, integrated = (
        driver.value("cuDeviceGetAttribute", ctypes.c_int, attribute, device)
        for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _MULTIPROCESSORS, INTEGRATED)
    )
    text = name.value.decode(errors="replace")
    if integrated and (board := _board()):
        text = f"{text} ({board})"
    return Gpu(text, f"{major}.{minor}", multiprocessors, bool(integrated), index)


def default_workspace(gpu: Gpu) -> int | None:
    """Return how many MiB a build may use: half of what is free where the CPU shares the memory.

    None, which is all of the GPU's memory, for a GPU with memory of its own.
    """
    if not gpu.integrated:
        return None
    available = available_memory()
    return None if available is None else max(64, (available >> 20) // 2)


def available_memory() -> int | None:
    """Return how many bytes programs can still get, or None if the system does not report it."""
    try:
        lines = MEMORY.read_text().splitlines()
        (kib,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError):
        return None
    return kib << 10


def _board() -> str:
    try:
        return BOARD.read_bytes().rstrip(b"\0").decode(errors="replace").strip()
    except OSError:
        return ""
