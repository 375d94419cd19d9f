"""Backends run named graphs. They know tensors, not YOLACT.

`Backend` is the one replaceable part of the runtime; each implementation imports its own library
when it is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from yolact_ros.errors import BackendError
from yolact_ros.runtime.bundle import Bundle, ModelDescription, is_bundle

Array = Any  # a numpy.ndarray, or a handle of an output that was kept on the device

BACKENDS = ("auto", "onnxruntime", "torch")


class Backend(Protocol):
    """Runs the graphs of one model."""

    def run(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> dict[str, Array]:
        """Run one named graph.

        Args:
            graph: its name.
            inputs: name to array; a handle that an earlier run kept may stand for an array.
            keep: outputs that stay on the device, as opaque handles for a later run.

        Returns:
            Name to array, or to a handle for those in `keep`.

        Raises:
            BackendError: there is no such graph, an input does not fit, or the library failed.
        """
        ...

    def close(self) -> None:
        """Free what the backend holds; it cannot be used afterwards."""
        ...


def open_backend(
    path: str | Path, name: str = "auto", *, threads: int = 0
) -> tuple[Backend, ModelDescription]:
    """Open a model: a bundle's folder, or a checkpoint's file.

    Args:
        path: the model.
        name: one of `BACKENDS`; `auto` takes ONNX Runtime for a bundle, PyTorch for a checkpoint.
        threads: of one operator; 0 takes one for each processor core.

    Raises:
        BackendError: the backend is unknown, does not fit the path, or its library is missing.
        BundleError, WeightsError: the model cannot be read.
    """
    if name not in BACKENDS:
        raise BackendError(f"Unknown backend {name!r}; expected one of {', '.join(BACKENDS)}.")
    path = Path(path)
    is_checkpoint = path.suffix in (".pth", ".pt") or (path.is_file() and not is_bundle(path))
    if name == "torch" and is_bundle(path):
        raise BackendError(
            f"{path} is a bundle, which PyTorch cannot run; use --backend onnxruntime, or name "
            "the checkpoint that it was exported from."
        )
    if name == "onnxruntime" and is_checkpoint:
        raise BackendError(
            f"{path} is a checkpoint, which ONNX Runtime cannot run; export it first: "
            f"yolact export {path} -o BUNDLE"
        )
    if is_checkpoint or name == "torch":
        return _open_torch(path, threads)
    return _open_onnxruntime(path, threads)


def _open_onnxruntime(path: Path, threads: int) -> tuple[Backend, ModelDescription]:
    from yolact_ros.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend

    bundle = Bundle.open(path)
    return OnnxRuntimeBackend(bundle, threads=threads), bundle.description


def _open_torch(path: Path, threads: int) -> tuple[Backend, ModelDescription]:
    from yolact_ros.runtime.backends.torch_backend import TorchBackend

    backend = TorchBackend(path, threads=threads)
    description = ModelDescription(
        backend.model, postprocess="host", max_detections=1000, identity=backend.identity
    )
    return backend, description
