"""Call the NVIDIA driver's own library, which every machine with a GPU has, by ctypes.

No CUDA runtime takes part, so none can be too new for the driver.
"""

from __future__ import annotations

import ctypes
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
