"""Describe the machine that a measurement ran on."""

from __future__ import annotations

import os
import platform
import sys

from yolact_ros.runtime.backends.open import cpu_name

# Libraries whose version affects the speed; only loaded ones are listed.
LIBRARIES = ("numpy", "cv2", "onnxruntime", "openvino", "torch")


def describe_machine() -> dict[str, str]:
    """Return the CPU, cores, load, system, and versions of the loaded libraries."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    description = {
        "cpu": cpu_name(),
        "cores": f"{usable} usable of {os.cpu_count()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if hasattr(os, "getloadavg"):
        description["load"] = f"{os.getloadavg()[0]:.1f} in the last minute"
    for name in LIBRARIES:
        if name in sys.modules:
            description[name] = str(sys.modules[name].__version__)
    return description


def peak_memory_mb() -> float:
    """Return the peak memory of this process in MB; 0 if unknown."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
