"""Open a model with a suitable backend."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from yolact_ros.config import BackendConfig
from yolact_ros.errors import BackendError, BundleError
from yolact_ros.runtime.backends import Backend
from yolact_ros.runtime.backends.choice import stored_choice
from yolact_ros.runtime.backends.tensorrt.gpu import find_gpu
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt
from yolact_ros.runtime.bundle import Bundle, ModelDescription, is_bundle, supported_warps
from yolact_ros.runtime.shipped import cached_bundle, cached_name

LOG = logging.getLogger(__name__)


def open_backend(
    path: str | Path,
    config: BackendConfig = BackendConfig(),  # noqa: B008 - frozen
    report: Callable[[str], bool] | None = None,
) -> tuple[Backend, ModelDescription]:
    """Open a model with a suitable backend.

    Args:
        path: a bundle (a folder with `model.json`) or a checkpoint (a `.pth` file).
        config: the backend and its settings.
        report: receives the progress of an engine build as a sentence, and returns whether to
            continue.

    Raises:
        BundleError: the bundle or checkpoint does not exist, is incomplete or altered.
        WeightsError: the checkpoint is invalid.
        BackendError: the backend's library is absent, or the backend cannot run the model.
    """
    path = Path(path)
    if path.is_file() and not is_bundle(path) and config.backend != "torch":
        path = cached_bundle(cached_name("*", path)) or path  # an export of these weights
    if path.is_file() and not is_bundle(path):
        if config.backend not in ("auto", "torch"):
            raise BackendError(
                f"{path} is a checkpoint, but {config.backend} runs bundles. Export one with: "
                f"yolact export {path} -o BUNDLE, or use --backend torch."
            )
        return _open_checkpoint(path, threads=config.threads)
    if config.backend == "torch":
        if not path.exists():
            raise BundleError(f"The checkpoint {path} does not exist.")
        raise BackendError(
            f"{path} is a folder, but PyTorch runs checkpoints (.pth files). Name the checkpoint "
            "that the bundle was exported from, or use --backend onnxruntime."
        )
    bundle = Bundle.open(path)
    if config.backend == "tensorrt" or (config.backend == "auto" and _suits_tensorrt(bundle)):
        from yolact_ros.runtime.backends.tensorrt.backend import open_tensorrt

        opened = open_tensorrt(
            bundle, device=config.device, build=config.build_engine, report=report
        )
        return opened, bundle.description
    if config.backend == "auto" and (config.provider, config.precision) == ("cpu", "f32"):
        config = stored_choice(bundle, config)
    if config.backend == "openvino":
        from yolact_ros.runtime.backends.openvino import OpenVinoBackend

        on_openvino = OpenVinoBackend(
            bundle, threads=config.threads, provider=config.provider, precision=config.precision
        )
        return on_openvino, bundle.description
    half = (config.precision, config.provider) == ("f16", "tensorrt")
    if config.precision != "f32" and not half:
        raise BackendError(
            f"precision is {config.precision!r}. Only backend openvino supports bf16 and f16, "
            "and provider tensorrt of ONNX Runtime supports f16. With backend tensorrt, the "
            "bundle determines the precision: yolact export --precision fp16."
        )
    from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(
        bundle, threads=config.threads, provider=config.provider, device=config.device, half=half
    )
    return backend, bundle.description


def _suits_tensorrt(bundle: Bundle) -> bool:
    """Return whether a bundle was exported for TensorRT, and a GPU and TensorRT are available."""
    if bundle.description.target != "tensorrt":
        return False
    try:
        find_gpu()
        import_tensorrt()
    except BackendError as error:
        LOG.warning(
            "%s was exported for TensorRT but runs with ONNX Runtime on the CPU, which "
            "may take seconds per image: %s",
            bundle.folder,
            error,
        )
        return False
    return True


def _open_checkpoint(path: Path, *, threads: int) -> tuple[Backend, ModelDescription]:
    from yolact_ros.runtime.backends.pytorch import TorchBackend

    backend = TorchBackend(path, threads=threads)
    return (
        backend,
        ModelDescription(
            model=backend.model,
            detect_form="on_demand",
            max_detections=1000,  # a checkpoint has no limit of its own
            identity=backend.identity[:12],
            warps=supported_warps(backend.model),
        ),
    )
