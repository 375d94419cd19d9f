"""Write a bundle so that its folder always holds either the old or the new one completely."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolact_ros.config import to_mapping
from yolact_ros.errors import BundleError
from yolact_ros.files import scratch_beside
from yolact_ros.runtime.backends.onnxruntime import describe_graph
from yolact_ros.runtime.bundle import (
    DESCRIPTION,
    FORMAT,
    Bundle,
    ModelDescription,
    checksum,
    is_bundle,
)

# Of renameat2(2).
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def write_bundle(
    folder: str | Path,
    description: ModelDescription,
    *,
    graphs: Mapping[str, bytes | Path],
    source: Mapping[str, str],
    versions: Mapping[str, str],
    quantization: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle, completely or not at all.

    An existing bundle in the folder is replaced; other files stay.

    Args:
        folder: destination folder.
        description: the model; its identity follows from the content of the bundle.
        graphs: name to ONNX model, as bytes or as the path of a file.
        source: name and SHA-256 of the checkpoint.
        versions: versions of the libraries used.
        quantization: plain values that describe how an int8 bundle was made.

    Raises:
        BundleError: the folder contains something else, or cannot be written.
        BackendError: ONNX Runtime, which reads the graphs' inputs and outputs, is absent or
            rejects a graph.
    """
    folder = Path(folder)
    if folder.exists() and not is_bundle(folder) and (folder.is_file() or any(folder.iterdir())):
        raise BundleError(
            f"{folder} exists and is not a bundle; choose another folder, or remove it first."
        )
    entries: dict[str, Any] = {}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(folder) as scratch:
            new = scratch / "new"
            new.mkdir()
            for name, graph in graphs.items():
                onnx = graph if isinstance(graph, bytes) else Path(graph).read_bytes()
                (new / f"{name}.onnx").write_bytes(onnx)
                inputs, outputs = describe_graph(onnx)
                entries[name] = {
                    "file": f"{name}.onnx",
                    "sha256": hashlib.sha256(onnx).hexdigest(),
                    "inputs": {key: to_mapping(info) for key, info in inputs.items()},
                    "outputs": {key: to_mapping(info) for key, info in outputs.items()},
                }
            content = {
                "format": FORMAT,
                **to_mapping(replace(description, identity="")),
                "graphs": entries,
                "source": dict(source),
                "versions": dict(versions),
                "quantization": quantization and dict(quantization),
            }
            # Neither the identity, which is not known yet, nor what does not apply.
            content = {name: value for name, value in content.items() if value not in ("", None)}
            content["checksum"] = checksum(content)
            (new / DESCRIPTION).write_text(json.dumps(content, indent=1) + "\n")
            _put_in_place(new, folder)
    except OSError as error:
        raise BundleError(f"The bundle {folder} cannot be written: {error}.") from error
    return Bundle.open(folder)


def _put_in_place(new: Path, folder: Path) -> None:
    """Move `new` to `folder`; keep files of `folder` that do not belong to a bundle.

    Engines of replaced graphs are not kept.
    """
    if folder.exists():
        for path in folder.iterdir():
            stale = path.suffix == ".onnx" or ".engine" in path.suffixes
            if path.name != DESCRIPTION and not stale:
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, new / path.name)
        exchange(new, folder)
    else:
        new.rename(folder)


def exchange(first: Path, second: Path) -> None:
    """Swap the names of two folders, so that an interrupt leaves each of them complete.

    Linux does so in one step. Elsewhere, and on file systems without support, it takes two, and an
    exception between them is rolled back.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        rename = None
    if rename is not None and not rename(
        AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE
    ):
        return
    old = first.with_name("old")
    try:
        second.rename(old)
        first.rename(second)
    finally:
        if old.exists() and not second.exists():
            old.rename(second)
