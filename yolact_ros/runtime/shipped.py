"""Find models and files that come with the package, by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from yolact_ros.config import SHIPPED_MODELS
from yolact_ros.errors import BundleError
from yolact_ros.files import file_sha256, user_cache
from yolact_ros.runtime.bundle import is_bundle
from yolact_ros.variants import VARIANTS

PACKAGE = Path(__file__).resolve().parent.parent


def find_model(model: str | Path) -> Path:
    """Return the bundle or checkpoint that a name or path refers to.

    Args:
        model: path of a bundle or checkpoint, or the name of a shipped model or of an official
            network that `yolact fetch` has downloaded. A bundle or file of that name in this
            working folder takes precedence.

    Raises:
        BundleError: it is a plain name, and no model has that name.
    """
    path = Path(model).expanduser()
    if is_bundle(path) or path.is_file():
        return path
    if str(model) in SHIPPED_MODELS:
        return shipped_file(f"models/{model}/model.json").parent
    if path.exists() or len(path.parts) > 1 or path.suffix:
        return path  # opening it reports what is missing
    name = str(model)
    if name in VARIANTS:
        if bundle := cached_bundle(f"{name}-*"):
            return bundle
        raise BundleError(
            f"The official network {name} is not on this machine. Fetch and export it once, where "
            f"PyTorch is installed: yolact fetch {name} (with -o FOLDER to copy it to a robot)."
        )
    likely = difflib.get_close_matches(name, [*SHIPPED_MODELS, *VARIANTS], n=1)
    meant = f"; did you mean {likely[0]!r}?" if likely else "."
    raise BundleError(
        f"There is no model {name!r}: it is neither a bundle or checkpoint at this path nor one "
        f"of the shipped models: {', '.join(SHIPPED_MODELS)}{meant}"
    )


def cached_bundle(pattern: str) -> Path | None:
    """Return the newest bundle in the cache whose name matches a pattern.

    The names are those of `cached_name`.
    """
    cache = user_cache()
    found = [] if cache is None else (cache / "models").glob(pattern)
    bundles = [folder for folder in found if is_bundle(folder)]
    return max(bundles, key=lambda folder: folder.stat().st_mtime, default=None)


def cached_name(variant: str, checkpoint: Path) -> str:
    """Return the cache name of an official checkpoint's bundle; the variant `*` matches any."""
    return f"{variant}-{file_sha256(checkpoint)[:12]}"


def shipped_file(name: str | Path) -> Path:
    """Return a file from the repository's folder `models`, `config` or `launch`.

    Args:
        name: path relative to the repository.

    Raises:
        BundleError: this installation does not include it.
    """
    for folder in _roots():
        if (folder / name).is_file():
            return folder / name
    raise BundleError(
        f"{name} is not part of this installation of yolact_ros. Name a bundle or a "
        "checkpoint instead, or run from a clone of the repository."
    )


def _roots() -> Iterator[Path]:
    """Yield the folders that are laid out like the repository."""
    if (PACKAGE.parent / "setup.cfg").is_file():
        yield PACKAGE.parent  # a clone, or an installation that links to it
    yield PACKAGE  # pip installs `models` inside the package
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / "yolact_ros"
