"""Resolve model names on the command line, and fetch or export what they require."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from yolact_ros.config import SHIPPED_MODELS
from yolact_ros.errors import WeightsError
from yolact_ros.files import user_cache
from yolact_ros.variants import VARIANTS


def find_checkpoint(name: str) -> str:
    """Return the checkpoint that a name refers to.

    Args:
        name: a checkpoint; a bundle or shipped model, whose checkpoint is recovered from its
            graphs once; or an official network that has been fetched.

    Raises:
        YolactError: nothing has that name.
    """
    from yolact_ros.model.weights.published import PUBLISHED
    from yolact_ros.runtime.bundle import Bundle, is_bundle
    from yolact_ros.runtime.shipped import find_model

    if name in PUBLISHED and not Path(name).exists():
        file = _cache() / "weights" / PUBLISHED[name].file
        if not file.is_file():
            raise WeightsError(f"{file} does not exist; fetch it with: yolact fetch {name}")
        return str(file)
    path = find_model(name)
    if not is_bundle(path):
        return str(path)
    bundle = Bundle.open(path)
    checkpoint = _cache() / "weights" / f"{path.name}-{bundle.description.identity}.pth"
    if not checkpoint.is_file():
        from yolact_ros.export.recover import recover_checkpoint

        recover_checkpoint(path, checkpoint)
    return str(checkpoint)


def prepare_model(name: str, *, yes: bool = False) -> str:
    """Make a model ready to open; official weights are fetched and exported once.

    Args:
        name: any model; only official networks and official checkpoints require work.
        yes: download without asking.

    Returns:
        The model to open.

    Raises:
        YolactError: the weights cannot be fetched, or do not belong to an official network.
    """
    from yolact_ros.runtime.bundle import is_bundle
    from yolact_ros.runtime.shipped import cached_bundle, cached_name

    path = Path(name)
    if path.suffix == ".json":  # results, which `yolact evaluate` also accepts
        return name
    if path.is_file() and not is_bundle(path):
        if cached_bundle(cached_name("*", path)) or not _is_official(path):
            return name
        return str(export_official(path))
    known = name in SHIPPED_MODELS or name not in VARIANTS or path.exists()
    if known or cached_bundle(f"{name}-*"):
        return name
    return str(export_official(fetch_official(name, yes=yes)))


def fetch_official(name: str, *, yes: bool = False) -> Path:
    """Download an official checkpoint into the cache, unless it is already there.

    Args:
        name: variant or file name.
        yes: download without asking.

    Raises:
        WeightsError: the file does not exist, or the download fails or is declined.
    """
    from yolact_ros.model.weights.published import published_file

    published = published_file(name)
    path = _cache() / "weights" / published.file
    if path.is_file():
        return path
    _check_libraries(name)
    from yolact_ros.model.weights.checkpoint import read_entries
    from yolact_ros.model.weights.download import download, find_file

    url = published.url
    if url is None:
        raise WeightsError(
            f"{published.file} can only be downloaded with a browser. Download it from "
            f"{published.readme}, and give the file instead of the name of the network."
        )
    remote = find_file(url)
    megabytes = "size unknown" if remote.size is None else f"{remote.size / 1e6:.1f} MB"
    print(f"{url}: {megabytes}, {published.licence} licence ({published.readme})", file=sys.stderr)
    if not yes:
        if not sys.stdin.isatty():
            raise WeightsError("Downloading requires your consent; give it with --yes.")
        if input("Download it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise WeightsError(f"{name} was not downloaded.")
    download(remote, path)
    try:
        read_entries(path)
    except WeightsError:
        path.unlink()  # so that the next attempt fetches it again
        raise
    return path


def export_official(checkpoint: Path, folder: Path | None = None) -> Path:
    """Export an official checkpoint, into the cache unless a folder is given.

    Raises:
        YolactError: the file does not belong to an official network, or the export fails.
    """
    from yolact_ros.export.options import ExportOptions
    from yolact_ros.export.to_bundle import export_bundle
    from yolact_ros.model.weights.checkpoint import load_checkpoint
    from yolact_ros.runtime.shipped import cached_name

    config = load_checkpoint(checkpoint).config
    if folder is None:
        folder = _cache() / "models" / cached_name(config.name, checkpoint)
    export_bundle(checkpoint, folder, ExportOptions(keyframes=config.flow is not None))
    print(f"Exported {checkpoint} to {folder}", file=sys.stderr)
    return folder


def _is_official(path: Path) -> bool:
    """Return whether a file has bare weights; False if PyTorch is not available to read it."""
    if importlib.util.find_spec("torch") is None:
        return False
    from yolact_ros.model.weights.checkpoint import CHECKPOINT_FORMAT, read_entries

    return read_entries(path).get("format") != CHECKPOINT_FORMAT


def _check_libraries(name: str) -> None:
    for library in ("torch", "onnx", "onnxscript", "onnxruntime", "pooch"):
        if importlib.util.find_spec(library) is None:
            raise WeightsError(
                f"Exporting official weights requires {library}, which is not installed. On a PC "
                f"with 'yolact_ros[export]', run: yolact fetch {name} -o {name}. Copy that "
                "folder here, and use it as the model."
            )


def _cache() -> Path:
    folder = user_cache()
    if folder is None:
        raise WeightsError(
            "There is no folder for the cache, because this user has no home "
            "directory; set XDG_CACHE_HOME to a folder."
        )
    return folder
