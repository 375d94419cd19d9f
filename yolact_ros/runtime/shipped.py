"""Models and files that come with the package, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from yolact_ros.config import SHIPPED_MODELS
from yolact_ros.errors import BundleError
from yolact_ros.runtime.bundle import is_bundle

PACKAGE = Path(__file__).resolve().parent.parent


def find_model(model: str | Path) -> Path:
    """Return the bundle or checkpoint that a user names.

    Args:
        model: path of a bundle or checkpoint, or the name of a shipped model. A bundle or file of
            the same name in the current folder comes first.

    Raises:
        BundleError: it is a bare name, and no such model is shipped.
    """
    path = Path(model).expanduser()
    if is_bundle(path) or path.is_file():
        return path
    if str(model) in SHIPPED_MODELS:
        return shipped_file(f"models/{model}/model.json").parent
    if path.exists() or len(path.parts) > 1 or path.suffix:
        return path  # opening it says what is missing
    raise BundleError(
        f"There is no model {str(model)!r}: neither a bundle nor a checkpoint of this path, nor "
        f"a shipped model; those are: {', '.join(SHIPPED_MODELS)}."
    )


def shipped_file(name: str | Path) -> Path:
    """Return a file of the repository's folder `models`, `config` or `launch`.

    Args:
        name: path relative to the repository.

    Raises:
        BundleError: this installation does not have it.
    """
    for folder in _roots():
        if (folder / name).is_file():
            return folder / name
    raise BundleError(
        f"{name} does not come with this installation of yolact_ros. Name a bundle or a "
        "checkpoint instead, or run from a clone of the repository."
    )


def _roots() -> Iterator[Path]:
    """Return the folders that are laid out like the repository."""
    if (PACKAGE.parent / "setup.cfg").is_file():
        yield PACKAGE.parent  # a clone, or an installation that links to it
    yield PACKAGE  # pip installs `models` inside the package
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / "yolact_ros"
