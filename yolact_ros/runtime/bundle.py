"""Bundles: folders that hold an exported network, checked before use.

A bundle is `model.json` and the ONNX files that it names, each with its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.config import ModelConfig, model_from_plain, to_plain
from yolact_ros.errors import BundleError, ConfigError

FORMAT = 1
DESCRIPTION_FILE = "model.json"
POSTPROCESS_PLACES = ("host", "graph")
SHIPPED_MODEL = "tabletop"


@dataclass(frozen=True)
class ModelDescription:
    """What the pipeline has to know of a network, wherever its weights come from.

    Attributes:
        model: the network's configuration.
        postprocess: `host` if its graphs end before thresholds and NMS, `graph` if not.
        max_detections: rows of a graph with NMS inside; an upper limit otherwise.
        identity: SHA-256 that stands for the weights.
    """

    model: ModelConfig
    postprocess: str
    max_detections: int
    identity: str


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, whose files have been checked.

    Attributes:
        folder: where it lies.
        description: what it is.
        graphs: name to the path of its ONNX file.
        source: what it was made from.
        versions: of the libraries that made it.
    """

    folder: Path
    description: ModelDescription
    graphs: Mapping[str, Path]
    source: Mapping[str, str]
    versions: Mapping[str, str]

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read a bundle and check every file against its SHA-256.

        Raises:
            BundleError: the folder or a file is missing, altered or of another format; the
                message names the file and what to do.
        """
        folder = Path(folder)
        content = _read_description(folder)
        graphs, digests = {}, []
        for name, entry in content["graphs"].items():
            path = folder / str(entry["file"])
            if path.parent.resolve() != folder.resolve():
                raise BundleError(f"{folder / DESCRIPTION_FILE} names a file outside: {path}.")
            _check_file(path, str(entry["sha256"]))
            graphs[name] = path
            digests.append(f"{name}:{entry['sha256']}")
        if "detect" not in graphs:
            raise BundleError(f"{folder} has no graph 'detect'; export the model again.")
        try:
            model = model_from_plain(content["model"])
        except ConfigError as error:
            raise BundleError(f"{folder / DESCRIPTION_FILE}: {error}") from error
        description = ModelDescription(
            model=model,
            postprocess=content["postprocess"],
            max_detections=int(content["max_detections"]),
            identity=hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest(),
        )
        return cls(folder, description, graphs, content["source"], content["versions"])


def write_bundle(
    folder: str | Path,
    model: ModelConfig,
    *,
    postprocess: str,
    max_detections: int,
    graphs: Mapping[str, bytes],
    source: Mapping[str, str],
    versions: Mapping[str, str],
) -> None:
    """Write a bundle; it appears whole or not at all, and replaces an older one.

    Args:
        folder: where; made with its parents.
        model: the network's configuration.
        postprocess: `host` or `graph`, see `ModelDescription`.
        max_detections: see `ModelDescription`.
        graphs: name to the bytes of its ONNX file.
        source: what it is made from, e.g. the checkpoint's file name and SHA-256.
        versions: of the libraries that make it.

    Raises:
        BundleError: the folder exists and is no bundle, so it will not be replaced.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / DESCRIPTION_FILE).is_file():
        raise BundleError(
            f"{folder} exists and is no bundle; it is left alone. Choose another folder."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        made.chmod(0o755)
        entries = {}
        for name, content in graphs.items():
            (made / f"{name}.onnx").write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entries[name] = {"file": f"{name}.onnx", "sha256": digest}
        description = {
            "format": FORMAT,
            "model": to_plain(model),
            "postprocess": postprocess,
            "max_detections": max_detections,
            "graphs": entries,
            "source": dict(source),
            "versions": dict(versions),
        }
        (made / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n")
        _replace_folder(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def shipped_bundle() -> Path:
    """Find the bundle that comes with the package.

    Looks beside the sources, then in every installed ROS prefix (`AMENT_PREFIX_PATH`).

    Raises:
        BundleError: it is nowhere.
    """
    here = Path(__file__).resolve()
    places = [here.parents[2] / "models"]
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            places.append(Path(prefix) / "share" / "yolact_ros" / "models")
    for place in places:
        if (place / SHIPPED_MODEL / DESCRIPTION_FILE).is_file():
            return place / SHIPPED_MODEL
    raise BundleError(
        f"The shipped model {SHIPPED_MODEL!r} was not found in: "
        f"{', '.join(str(place) for place in places)}. Name a bundle, or source the workspace "
        "that yolact_ros is installed in."
    )


def is_bundle(path: str | Path) -> bool:
    """Tell whether `path` is a folder with a model description."""
    return (Path(path) / DESCRIPTION_FILE).is_file()


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise BundleError(
            f"{folder} is no bundle: it has no {DESCRIPTION_FILE}. Make one with: "
            f"yolact export CHECKPOINT -o {folder}"
        )
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}); export the model again.") from error
    expected = {"format", "model", "postprocess", "max_detections", "graphs", "source", "versions"}
    missing = expected - set(content) if isinstance(content, dict) else expected
    if missing:
        raise BundleError(f"{path} lacks: {', '.join(sorted(missing))}; export the model again.")
    if content["format"] != FORMAT:
        raise BundleError(
            f"{path} has format {content['format']!r}; this version reads {FORMAT}. "
            "Export the model again with this version."
        )
    if content["postprocess"] not in POSTPROCESS_PLACES:
        raise BundleError(
            f"{path}: postprocess is {content['postprocess']!r}; expected one of "
            f"{', '.join(POSTPROCESS_PLACES)}."
        )
    return content


def _check_file(path: Path, digest: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing; copy the whole bundle, or export it again.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise BundleError(
            f"{path} was altered or not copied whole: its SHA-256 is {found[:12]}..., "
            f"{DESCRIPTION_FILE} says {digest[:12]}... Copy the bundle again, or export it again."
        )


def _replace_folder(made: Path, folder: Path) -> None:
    if not folder.exists():
        made.rename(folder)
        return
    old = made.with_name(f"{made.name}.old")
    folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old)
