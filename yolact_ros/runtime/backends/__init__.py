"""Backends run named graphs on tensors; they know nothing of YOLACT."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from yolact_ros.errors import BackendError, BundleError
from yolact_ros.runtime.bundle import Bundle, ModelDescription, is_bundle, supported_warps

# numpy.ndarray, or an opaque handle for an output that was kept on the device.
Array = Any

BACKENDS = ("auto", "onnxruntime", "torch")


class Backend(Protocol):
    """The replaceable part of the pipeline."""

    def run(
        self, graph: str, inputs: Mapping[str, Array], *, keep: Collection[str] = ()
    ) -> dict[str, Array]:
        """Run one named graph.

        Args:
            graph: its name, e.g. `detect`.
            inputs: by name, numpy arrays or handles of an earlier run.
            keep: names of outputs that stay on the device as opaque handles for a later run.

        Returns:
            Outputs by name.

        Raises:
            BackendError: there is no such graph, its inputs do not fit, or the library fails.
        """

    def close(self) -> None:
        """Free what the backend holds; it cannot be used afterwards."""


def open_backend(
    path: str | Path, name: str = "auto", *, threads: int = 0
) -> tuple[Backend, ModelDescription]:
    """Open a model with the backend that suits it.

    Args:
        path: a bundle (a folder with `model.json`) or a checkpoint (a `.pth` file).
        name: one of `BACKENDS`; `auto` is ONNX Runtime for a bundle, PyTorch for a checkpoint.
        threads: threads of one operator; 0 leaves the choice to the backend.

    Raises:
        BundleError: there is no bundle or checkpoint, or it is incomplete or altered.
        WeightsError: the checkpoint cannot be used.
        BackendError: the backend's library is absent, or the backend does not run such a model.
    """
    path = Path(path)
    if name not in BACKENDS:
        raise BackendError(f"Unknown backend {name!r}; expected one of: {', '.join(BACKENDS)}.")
    if path.is_file() and not is_bundle(path):
        if name == "onnxruntime":
            raise BackendError(
                f"{path} is a checkpoint, and ONNX Runtime runs bundles. Make one with: "
                f"yolact export {path} -o BUNDLE, or use --backend torch."
            )
        return _open_checkpoint(path, threads=threads)
    if name == "torch":
        if not path.exists():
            raise BundleError(f"The checkpoint {path} does not exist.")
        raise BackendError(
            f"{path} is a folder, and PyTorch runs checkpoints (.pth files). Name the checkpoint "
            "that the bundle was exported from, or use --backend onnxruntime."
        )
    from yolact_ros.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend

    bundle = Bundle.open(path)
    return OnnxRuntimeBackend(bundle, threads=threads), bundle.description


def _open_checkpoint(path: Path, *, threads: int) -> tuple[Backend, ModelDescription]:
    from yolact_ros.runtime.backends.torch_backend import TorchBackend

    backend = TorchBackend(path, threads=threads)
    return (
        backend,
        ModelDescription(
            model=backend.model,
            postprocess="host",
            max_detections=1000,  # a checkpoint itself sets no limit
            identity=backend.identity[:12],
            warps=supported_warps(backend.model),
        ),
    )
