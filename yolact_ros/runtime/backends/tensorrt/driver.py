"""Call the NVIDIA driver's own library by ctypes, and describe GPUs.

Every machine with a GPU has this library. No CUDA runtime takes part, so none can be too new for
the driver.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.errors import BackendError

DRIVER = "libcuda.so.1"

# After these errors (illegal address, assert, launch failure, lost device, ...) every later call
# fails too: the CUDA context of the process is broken.
STICKY = {214, 700, 702, 710, *range(714, 720), 999}

Address = ctypes.c_uint64  # CUdeviceptr
Handle = ctypes.c_void_p  # streams, graphs, contexts

_INT, _SIZE, _OUT = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p

# Argument types, from cuda.h; without them ctypes would cut addresses to 32 bits.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (_OUT,),
    "cuGetErrorString": (_INT, _OUT),
    "cuDeviceGetCount": (_OUT,),
    "cuDeviceGet": (_OUT, _INT),
    "cuDeviceGetName": (_OUT, _INT, _INT),
    "cuDeviceGetAttribute": (_OUT, _INT, _INT),
    "cuDevicePrimaryCtxRetain": (_OUT, _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuDevicePrimaryCtxSetFlags_v2": (_INT, ctypes.c_uint),
    "cuCtxSetCurrent": (Handle,),
    "cuStreamCreate": (_OUT, ctypes.c_uint),
    "cuStreamDestroy_v2": (Handle,),
    "cuStreamSynchronize": (Handle,),
    "cuEventCreate": (_OUT, ctypes.c_uint),
    "cuEventRecord": (Handle, Handle),
    "cuEventElapsedTime": (_OUT, Handle, Handle),
    "cuEventDestroy_v2": (Handle,),
    "cuStreamBeginCapture_v2": (Handle, _INT),
    "cuStreamEndCapture": (Handle, _OUT),
    "cuGraphInstantiateWithFlags": (_OUT, Handle, ctypes.c_ulonglong),
    "cuGraphDestroy": (Handle,),
    "cuGraphExecDestroy": (Handle,),
    "cuGraphLaunch": (Handle, Handle),
    "cuMemAlloc_v2": (_OUT, _SIZE),
    "cuMemFree_v2": (Address,),
    "cuMemHostAlloc": (_OUT, _SIZE, ctypes.c_uint),
    "cuMemHostGetDevicePointer_v2": (_OUT, Handle, ctypes.c_uint),
    "cuMemFreeHost": (Handle,),
    "cuMemGetInfo_v2": (_OUT, _OUT),
    "cuMemcpyHtoDAsync_v2": (Address, Handle, _SIZE, Handle),
    "cuMemcpyDtoHAsync_v2": (Handle, Address, _SIZE, Handle),
    "cuMemcpyDtoDAsync_v2": (Address, Address, _SIZE, Handle),
}
# CUdevice_attribute of cuda.h.
_MULTIPROCESSORS, INTEGRATED = 16, 18
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
# A Jetson's name; its GPU is called `Orin` on every Orin module.
BOARD = Path("/proc/device-tree/model")
MEMORY = Path("/proc/meminfo")


class Driver:
    """Represents the library, loaded and initialised."""

    def __init__(self) -> None:
        """Load the driver.

        Raises:
            BackendError: there is no driver, or it cannot start.
        """
        try:
            self._library = ctypes.CDLL(DRIVER)
        except OSError as error:
            raise BackendError(
                f"No GPU: the NVIDIA driver's {DRIVER} cannot be loaded ({error}). Install the "
                "driver; in a container, start it with the NVIDIA runtime (--gpus all)."
            ) from error
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of `SIGNATURES`.

        Raises:
            BackendError: it fails; the message quotes the driver.
        """
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise BackendError(
                f"The NVIDIA driver is too old: it has no {name}. Install a driver of CUDA 11.4 "
                "or later."
            ) from error
        function.argtypes = SIGNATURES[name]
        status = function(*arguments)
        if status:
            raise BackendError(self._describe(name, status))

    def value(self, name: str, kind: Any, *arguments: Any) -> Any:
        """Call a function whose first argument receives its result, and return the result."""
        result = kind()
        self.call(name, ctypes.byref(result), *arguments)
        return result.value

    def device(self, index: int) -> int:
        """Return the driver's handle of a GPU; the index respects CUDA_VISIBLE_DEVICES.

        Raises:
            BackendError: there is no GPU with this index.
        """
        count = self.value("cuDeviceGetCount", ctypes.c_int)
        if not 0 <= index < count:
            raise BackendError(f"There is no GPU {index}; the driver reports {count}, from 0 on.")
        return int(self.value("cuDeviceGet", ctypes.c_int, index))

    def _describe(self, name: str, status: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
        reason = (text.value or b"unknown error").decode(errors="replace")
        version = ctypes.c_int()
        self._library.cuDriverGetVersion(ctypes.byref(version))
        cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
        hint = ""
        if status in STICKY:
            hint = " CUDA cannot recover from this in the same process: restart it."
        return (
            f"The NVIDIA driver (CUDA {cuda}) failed in {name}: {reason} (error {status}).{hint}"
        )


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
