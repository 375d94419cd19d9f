"""Open a model with a suitable backend, list the possible ones, and store the fastest one.

`yolact benchmark --compare --store` measures and stores; `backend: auto` reads the choice, a small
file in the user's cache for one bundle on one kind of CPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from yolact_ros.config import BackendConfig
from yolact_ros.errors import BackendError, BundleError, ConfigError
from yolact_ros.files import parse_json, read_file, replace_file, user_cache
from yolact_ros.runtime.backends import Backend
from yolact_ros.runtime.backends.onnxruntime import available_providers, physical_cores
from yolact_ros.runtime.backends.tensorrt.driver import find_gpu
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt
from yolact_ros.runtime.bundle import Bundle, ModelDescription, is_bundle, supported_warps
from yolact_ros.runtime.shipped import cached_bundle, cached_name

LOG = logging.getLogger(__name__)
STORED = ("backend", "provider", "precision")  # the settings that a choice consists of


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
    description = ModelDescription(
        model=backend.model,
        detect_form="on_demand",
        max_detections=1000,  # a checkpoint has no limit of its own
        identity=backend.identity[:12],
        warps=supported_warps(backend.model),
    )
    return backend, description


def candidates(bundle: Bundle) -> list[BackendConfig]:
    """Return every installed way to run a bundle; ONNX Runtime on the CPU in float32 comes first.

    A precision is listed only where the hardware supports it.
    """
    found = []
    try:
        found += [BackendConfig("onnxruntime", provider=p) for p in available_providers()]
    except BackendError as error:
        LOG.info("%s", error)
    try:
        from yolact_ros.runtime.backends.openvino import available_devices

        found += [
            BackendConfig("openvino", provider=device, precision=precision)
            for device, precisions in available_devices().items()
            for precision in precisions
        ]
    except BackendError as error:
        LOG.info("%s", error)
    if bundle.description.target == "tensorrt":
        found.append(BackendConfig("tensorrt"))
    return found


def choice_file(identity: str) -> Path:
    """Return where the choice for a bundle on this machine is stored.

    Args:
        identity: identity of the model, `ModelDescription.identity`.

    Raises:
        BackendError: this user has no cache folder.
    """
    cache = user_cache()
    if cache is None:
        raise BackendError("This user has no home directory; set XDG_CACHE_HOME to a folder.")
    machine = hashlib.sha256(_machine().encode()).hexdigest()[:8]
    return cache / f"backend-{identity}-{machine}.json"


def store_choice(identity: str, config: BackendConfig) -> Path:
    """Make `backend: auto` run a bundle this way on this machine from now on.

    Returns:
        The file that stores the choice; deleting it discards the choice.

    Raises:
        BackendError: the file cannot be written.
    """
    path = choice_file(identity)
    content = {"machine": _machine(), **{name: getattr(config, name) for name in STORED}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise BackendError(f"The choice of a backend cannot be stored: {error}.") from error
    return path


def stored_choice(bundle: Bundle, config: BackendConfig) -> BackendConfig:
    """Return `config` with the library, device and precision stored for a bundle.

    A choice that cannot be read, or whose library is gone, is ignored with a warning; without a
    choice, `config` is returned.
    """
    if user_cache() is None:  # nothing can have been stored
        return config
    try:
        path = choice_file(bundle.description.identity)
        if not path.exists():
            return config
        content = parse_json(read_file(path, error=BackendError), where=path, error=BackendError)
        chosen = BackendConfig(**{name: content[name] for name in STORED})
        if chosen not in candidates(bundle):
            raise BackendError(f"{path} names {label(chosen)}, which is not available here.")
    except (BackendError, ConfigError, KeyError, TypeError, OSError) as error:
        LOG.warning("Ignoring %s, the stored choice of a backend: %r", path, error)
        return config
    LOG.info("%s runs on %s, as chosen in %s", bundle.folder, label(chosen), path)
    return replace(config, **{name: getattr(chosen, name) for name in STORED})


def label(config: BackendConfig) -> str:
    """Return a label of the library, its device unless that is the CPU, and the precision."""
    device = "" if config.provider == "cpu" else f" {config.provider}"
    return f"{config.backend}{device} {config.precision}"


def cpu_name() -> str:
    """Return the name of the CPU, or of the board that it is on."""
    for path, key in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            lines = Path(path).read_text(errors="replace").strip("\0\n").splitlines()
        except OSError:
            continue
        found = next((line for line in lines if line.startswith(key)), "")
        if found:
            return found.rpartition(": ")[2] if key else found
    return platform.processor() or platform.machine()


def _machine() -> str:
    return f"{cpu_name()}, {physical_cores()} cores"
