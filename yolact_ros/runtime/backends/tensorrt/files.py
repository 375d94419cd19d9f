"""Read and write engine files: graphs compiled by TensorRT, each with a sidecar.

    detect.tensorrt-10.3.0-sm87x16-fp16-b1-0a1b2c3d4e5f.engine         the engine
    detect.tensorrt-10.3.0-sm87x16-fp16-b1-0a1b2c3d4e5f.engine.json    its sidecar

The digits at the end are the first of the SHA-256 of the identity. The sidecar holds the whole
identity, and the size and SHA-256 of the engine. An engine is code for the GPU, which the library
does not check, so it is used only if all of this fits. The hash detects a damaged or exchanged
file; it is not a signature, since whoever can write both files can make them fit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from yolact_ros.errors import BackendError
from yolact_ros.files import parse_json, read_file, replace_file
from yolact_ros.runtime.backends.tensorrt.driver import Gpu
from yolact_ros.runtime.bundle import Bundle

# 2: bilinear GridSample whatever the parser, and no TF32; engines of format 1 may sample wrongly.
# 3: multiprocessors and integrated memory are part of the identity.
MAX_SIDECAR_BYTES = 1 << 20
SIDECAR_FORMAT = "yolact_ros engine 3"
OLDER_FORMATS = ("yolact_ros engine 1", "yolact_ros engine 2")
SUFFIX = ".engine"
SIDECAR_SUFFIX = ".json"  # appended to the engine's whole name


@dataclass(frozen=True)
class EngineIdentity:
    """Holds everything that an engine depends on.

    Attributes:
        graph_sha256: of the ONNX file.
        library: `tensorrt` or `tensorrt_rtx`.
        library_version: in full.
        gpu: the GPU's name, on a Jetson with that of the board; empty for an engine that was built
            ahead of time for every GPU of its compute capability.
        compute_capability: e.g. `8.7`.
        precision: `fp32`, `fp16` or `int8`.
        batch: images of one run.
        multiprocessors: of the GPU, in the power mode of the build; 0 ahead of time.
        integrated: whether the GPU shares the memory of the CPU.
    """

    graph_sha256: str
    library: str
    library_version: str
    gpu: str
    compute_capability: str
    precision: str
    batch: int
    multiprocessors: int = 0
    integrated: bool = False

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the identity, in hexadecimal digits."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, found: dict[str, Any]) -> str:
        """Describe how the identity of a sidecar differs from this one; empty if it does not."""
        expected = dataclasses.asdict(self)
        different = {name: value for name, value in expected.items() if found.get(name) != value}
        text = ", ".join(
            f"{name} {found.get(name)!r} instead of {value!r}" for name, value in different.items()
        )
        if "multiprocessors" in different and self.integrated:
            text += " (power modes of a Jetson switch some off: build in the mode that is used)"
        return text


def engine_identity(
    bundle: Bundle, graph: str, *, library: str, library_version: str, gpu: Gpu
) -> EngineIdentity:
    """Return the identity that the engine of a graph must have to run on a GPU with a library.

    Engines of `tensorrt_rtx` are finished on the GPU that they run on, so they serve every GPU of
    their compute capability; those of `tensorrt` contain what was fastest on one kind of GPU.

    Args:
        bundle: a bundle.
        graph: name of one of its graphs.
        library: `tensorrt` or `tensorrt_rtx`.
        library_version: in full.
        gpu: the GPU that runs the engine.
    """
    ahead_of_time = library == "tensorrt_rtx"
    return EngineIdentity(
        graph_sha256=bundle.graphs[graph].sha256,
        library=library,
        library_version=library_version,
        gpu="" if ahead_of_time else gpu.name,
        compute_capability=gpu.compute_capability,
        precision=bundle.description.precision,
        batch=bundle.description.batch,
        multiprocessors=0 if ahead_of_time else gpu.multiprocessors,
        integrated=not ahead_of_time and gpu.integrated,
    )


def engine_path(folder: str | Path, graph: str, identity: EngineIdentity) -> Path:
    """Return the path of the engine of a graph.

    Args:
        folder: of the bundle, or another one that holds engines.
        graph: its name, e.g. `detect`.
        identity: identity of the engine.
    """
    size = f"x{identity.multiprocessors}" if identity.multiprocessors else ""
    name = (
        f"{graph}.{identity.library}-{identity.library_version}"
        f"-sm{identity.compute_capability.replace('.', '')}{size}"
        f"-{identity.precision}-b{identity.batch}-{identity.digest[:12]}{SUFFIX}"
    )
    return Path(folder) / name


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of an engine."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def read_engine(path: Path, identity: EngineIdentity) -> bytes:
    """Read an engine, and check it against its sidecar and an identity.

    Args:
        path: of the engine.
        identity: that it must have.

    Returns:
        The bytes that were checked.

    Raises:
        BackendError: engine or sidecar is missing, truncated, altered, in a newer format, or for
            something else; the message states which.
    """
    if not path.is_file():
        raise BackendError(f"There is no engine {path}.")
    sidecar = _read_sidecar(path)
    different = identity.differences(sidecar["identity"])
    if different:
        raise BackendError(f"The engine {path} was built for something else: {different}.")
    content = read_file(path, error=BackendError)
    if len(content) != sidecar["bytes"]:
        raise BackendError(
            f"The engine {path} is incomplete: it has {len(content)} bytes, its sidecar says "
            f"{sidecar['bytes']}."
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != sidecar["sha256"]:
        raise BackendError(
            f"The engine {path} was altered: its SHA-256 is {digest[:12]}..., its sidecar says "
            f"{str(sidecar['sha256'])[:12]}..."
        )
    return content


def write_engine(path: Path, content: bytes, identity: EngineIdentity, *, seconds: float) -> None:
    """Write an engine, then its sidecar, each atomically.

    Until the sidecar exists, readers reject the engine.

    Args:
        path: path from `engine_path`; its folder is created if needed.
        content: the serialised engine.
        identity: its identity.
        seconds: how long the build took, as information.

    Raises:
        BackendError: the files cannot be written.
    """
    sidecar = {
        "format": SIDECAR_FORMAT,
        "identity": dataclasses.asdict(identity),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "build_seconds": round(seconds, 1),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (json.dumps(sidecar, indent=1) + "\n").encode()
        replace_file(path, lambda file: _write_readable(file, content))
        replace_file(sidecar_path(path), lambda file: _write_readable(file, text))
        _remove_useless(path.parent, path.name.partition(".")[0], identity.graph_sha256)
    except OSError as error:
        raise BackendError(f"The engine {path} cannot be written: {error}.") from error


def _remove_useless(folder: Path, graph: str, sha256: str) -> None:
    """Remove engines of an older graph or format, which nothing can use again."""
    for path in folder.glob(f"{graph}.*{SUFFIX}"):
        with contextlib.suppress(OSError, BackendError, AttributeError):  # not one of ours
            where = sidecar_path(path)
            content = read_file(where, limit=MAX_SIDECAR_BYTES, error=BackendError)
            sidecar = parse_json(content, where=where, error=BackendError)
            stale = sidecar.get("identity", {}).get("graph_sha256") != sha256
            if stale or sidecar.get("format") in OLDER_FORMATS:
                path.unlink()
                where.unlink()


def _write_readable(file: IO[bytes], content: bytes) -> None:
    """Write a file that others can read whatever the umask, as they can the graph."""
    os.fchmod(file.fileno(), 0o644)
    file.write(content)


def _read_sidecar(path: Path) -> dict[str, Any]:
    where = sidecar_path(path)
    if not where.exists():
        raise BackendError(
            f"The engine {path} has no sidecar {where.name}, so its origin is unknown."
        )
    content = read_file(where, limit=MAX_SIDECAR_BYTES, error=BackendError)
    sidecar = parse_json(content, where=f"The sidecar {where}", error=BackendError)
    found = sidecar.get("format") if isinstance(sidecar, dict) else None
    if found != SIDECAR_FORMAT:
        raise BackendError(f"{where} has format {found!r}; expected {SIDECAR_FORMAT!r}.")
    if not isinstance(sidecar.get("identity"), dict) or not {"bytes", "sha256"} <= set(sidecar):
        raise BackendError(f"{where} lacks an entry; expected identity, bytes and sha256.")
    return sidecar
