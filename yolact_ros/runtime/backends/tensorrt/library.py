"""Import TensorRT or TensorRT-RTX, and pass on what the library logs."""

from __future__ import annotations

import functools
import importlib
import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from yolact_ros.errors import BackendError

LOG = logging.getLogger(__name__)

LIBRARIES = ("tensorrt", "tensorrt_rtx")

# The version of JetPack 6.1, the oldest one whose bindings are tested. Parsers before version 10
# misread reductions of the exported graphs.
OLDEST = (10, 3)

INSTALL = (
    "TensorRT is not installed ({reason}). On a Jetson it comes with JetPack (apt install "
    "python3-libnvinfer), for the system's Python: create a virtual environment with "
    "--system-site-packages. Elsewhere: pip install tensorrt (CUDA 13) or tensorrt-cu12, or for "
    "GeForce and RTX GPUs: pip install 'yolact_ros[tensorrt_rtx]'."
)


@dataclass(frozen=True)
class TensorRt:
    """Represents an imported library.

    Attributes:
        name: `tensorrt` or `tensorrt_rtx`.
        version: the full version.
        module: the Python module.
    """

    name: str
    version: str
    module: Any

    @property
    def label(self) -> str:
        """Return the name and the version, for messages."""
        return f"{'TensorRT-RTX' if self.ahead_of_time else 'TensorRT'} {self.version}"

    @property
    def ahead_of_time(self) -> bool:
        """Return whether the library compiles for GPUs that are not in this machine."""
        return self.name == "tensorrt_rtx"

    def capabilities(self) -> tuple[str, ...]:
        """Return the compute capabilities to compile for ahead of time; none for TensorRT."""
        if not self.ahead_of_time:
            return ()
        names = self.module.ComputeCapability.__members__
        digits = [name[2:] for name in names if re.fullmatch(r"SM\d{2,3}", name)]
        return tuple(f"{text[:-1]}.{text[-1]}" for text in digits)


def import_tensorrt(name: str = "auto") -> TensorRt:
    """Import TensorRT or TensorRT-RTX.

    Args:
        name: one of `LIBRARIES`; `auto` is the first that can be imported.

    Raises:
        BackendError: it cannot be imported, or is too old.
    """
    if name not in ("auto", *LIBRARIES):
        raise BackendError(
            f"Unknown library {name!r}; expected one of: auto, {', '.join(LIBRARIES)}."
        )
    reasons = []
    for candidate in LIBRARIES if name == "auto" else (name,):
        try:
            module = importlib.import_module(candidate)
        except (ImportError, OSError) as error:  # OSError: one of its shared libraries is missing
            reasons.append(f"{candidate}: {error}")
            continue
        found = TensorRt(candidate, str(module.__version__), module)
        if not found.ahead_of_time and version_numbers(found.version) < OLDEST:
            raise BackendError(
                f"{found.label} is too old; expected 10.3 or later, which comes with JetPack 6.1. "
                "Parsers before version 10 misread operators of these graphs."
            )
        if not found.ahead_of_time:
            # TensorRT's own plugins include the one that computes DeformConv.
            module.init_libnvinfer_plugins(None, "")
        return found
    raise BackendError(INSTALL.format(reason="; ".join(reasons)))


def version_numbers(version: str) -> tuple[int, ...]:
    """Parse a version: `10.3.0.post1` becomes (10, 3, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


@functools.cache
def shared_logger(trt: Any) -> Any:
    """Return the logger of a library: it keeps errors, and passes warnings on to `logging`.

    There is one for all builds and engines, because TensorRT warns of a second one while the first
    is in use.
    """

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=20)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self._errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                LOG.warning("%s", message)

        def take_errors(self) -> list[str]:
            """Return the errors since the last call, the oldest first."""
            errors = list(self._errors)
            self._errors.clear()
            return errors

    return Log()
