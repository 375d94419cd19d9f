"""A bundle: the folder that holds an exported model, `model.json` beside its `*.onnx` graphs.

    {"format": 1, "model": ModelConfig, "postprocess": "host" | "graph", "max_detections": N,
     "warps": ["dis", "none"], "target": "onnxruntime" | "tensorrt", "precision": "fp32",
     "batch": 1,
     "graphs": {"detect": {"file": ..., "sha256": ..., "inputs": {name: {"shape", "dtype"}},
                           "outputs": {name: {"shape", "dtype"}}}, ...},
     "source": {"checkpoint": file name, "sha256": ...}, "versions": {library: version},
     "quantization": {...}}

A dimension of -1 is free. `postprocess` says where thresholds, NMS and re-scoring run. A bundle
for video lists its `warps`, the ways in which features of a keyframe can be moved; in the place of
`detect` it has `keyframe`, `non_keyframe_flow` and, for the warp `learned`, `non_keyframe`.
`target` says what the graphs were written for; `*.engine` files beside them are TensorRT's
(`runtime.engine_file`). `quantization` is for the reader of an int8 bundle (`export.int8_bundle`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.config import WARPS, ModelConfig, model_from_plain, to_mapping
from yolact_ros.errors import BundleError, ConfigError

FORMAT = 1
DESCRIPTION = "model.json"
POSTPROCESS = ("host", "graph")
TARGETS = ("onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")
# An output that another graph goes on from, where it is needed.
ON_DEMAND = {"towers": "locate", "p3": "prototypes"}
CHOICES = {"postprocess": POSTPROCESS, "target": TARGETS, "precision": PRECISIONS}
REPAIR = "Copy the bundle again, or export it anew: yolact export CHECKPOINT -o {folder}"


@dataclass(frozen=True)
class ModelDescription:
    """What the pipeline has to know about a model, whichever backend runs it.

    Attributes:
        model: the network.
        postprocess: `host` if the graph `detect` gives predictions of all priors, `graph` if it
            ends in finished detections.
        max_detections: most detections of one image; settings may ask for fewer.
        identity: first digits of the SHA-256 that tells this model from all others.
        warps: how features of a keyframe can be moved, best first; none for single images only.
        target: what the graphs were written for, one of `TARGETS`; ONNX Runtime runs all of them.
        precision: of the graphs' arithmetic, one of `PRECISIONS`.
        batch: images of one run; above 1, every tensor has this as its first dimension.
    """

    model: ModelConfig
    postprocess: str
    max_detections: int
    identity: str
    warps: tuple[str, ...] = ()
    target: str = "onnxruntime"
    precision: str = "fp32"
    batch: int = 1


def supported_warps(model: ModelConfig) -> tuple[str, ...]:
    """The warps that a network can have: only `learned` needs a flow network."""
    return WARPS if model.flow is not None else tuple(w for w in WARPS if w != "learned")


@dataclass(frozen=True)
class TensorInfo:
    """Shape and numpy dtype of one input or output; -1 is a free dimension."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GraphInfo:
    """One graph: its file with its SHA-256, and its tensors by name."""

    path: Path
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are complete and unaltered.

    Attributes:
        folder: where it lies.
        description: the model.
        graphs: by name; those of images or those of video, and `rescore` for YOLACT++ with
            post-processing on the host.
        source: the checkpoint that it was made from.
        versions: of the libraries that made it.
    """

    folder: Path
    description: ModelDescription
    graphs: Mapping[str, GraphInfo]
    source: Mapping[str, str]
    versions: Mapping[str, str]

    def read_graph(self, name: str) -> bytes:
        """The ONNX model of a graph, unaltered since the bundle was opened.

        Raises:
            BundleError: it cannot be read, or is another one by now.
        """
        graph = self.graphs[name]
        try:
            content = graph.path.read_bytes()
        except OSError as error:
            raise BundleError(f"{graph.path} cannot be read: {error}.") from error
        if hashlib.sha256(content).hexdigest() != graph.sha256:
            raise BundleError(f"{graph.path} was replaced while the bundle was open; try again.")
        return content

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read `model.json` and check every file.

        Raises:
            BundleError: the folder or one of its files is missing, altered, or of a newer format.
        """
        folder = Path(folder)
        content, digest = _read_description(folder)
        try:
            graphs = {
                str(name): _check_graph(folder, str(name), entry)
                for name, entry in content["graphs"].items()
            }
            description = ModelDescription(
                model=model_from_plain(content["model"]),
                postprocess=str(content["postprocess"]),
                max_detections=int(content["max_detections"]),
                identity=digest[:12],
                warps=tuple(str(warp) for warp in content.get("warps", ())),
                target=str(content.get("target", "onnxruntime")),
                precision=str(content.get("precision", "fp32")),
                batch=int(content.get("batch", 1)),
            )
        except ConfigError as error:
            raise BundleError(f"{folder / DESCRIPTION}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"{folder / DESCRIPTION} lacks or garbles an entry ({type(error).__name__}: "
                f"{error}). {REPAIR.format(folder=folder)}"
            ) from error
        _check_completeness(folder, description, graphs)
        return cls(
            folder, description, graphs, content.get("source", {}), content.get("versions", {})
        )


def is_bundle(path: str | Path) -> bool:
    """Whether `path` is a folder with a `model.json`."""
    return (Path(path) / DESCRIPTION).is_file()


def _read_description(folder: Path) -> tuple[dict[str, Any], str]:
    """Content of `model.json` and its SHA-256, which covers the graphs' own."""
    path = folder / DESCRIPTION
    if not folder.is_dir():
        raise BundleError(
            f"The bundle {folder} does not exist; expected a folder with {DESCRIPTION} in it. "
            "Make one with: yolact export CHECKPOINT -o BUNDLE"
        )
    try:
        raw = path.read_bytes()
        content = json.loads(raw)
    except FileNotFoundError as error:
        raise BundleError(
            f"The folder {folder} is no bundle: it has no {DESCRIPTION}. "
            f"{REPAIR.format(folder=folder)}"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} cannot be read: {error}. {REPAIR.format(folder=folder)}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise BundleError(
            f"{path} has format {found!r}; this version of yolact_ros reads format {FORMAT}. "
            f"Update yolact_ros, or export the bundle anew: yolact export CHECKPOINT -o {folder}"
        )
    return content, hashlib.sha256(raw).hexdigest()


def _check_graph(folder: Path, name: str, entry: Mapping[str, Any]) -> GraphInfo:
    path = folder / entry["file"]
    if path.parent != folder:
        raise BundleError(
            f"{folder / DESCRIPTION}: graph {name!r} lies in {entry['file']!r}; expected a plain "
            f"file name. {REPAIR.format(folder=folder)}"
        )
    if not path.is_file():
        raise BundleError(f"{path} is missing. {REPAIR.format(folder=folder)}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != entry["sha256"]:
        raise BundleError(
            f"{path} was altered or is incomplete: its SHA-256 is {digest[:12]}..., {DESCRIPTION} "
            f"says {str(entry['sha256'])[:12]}... {REPAIR.format(folder=folder)}"
        )
    return GraphInfo(path, _tensors(entry["inputs"]), _tensors(entry["outputs"]), digest)


def _check_completeness(
    folder: Path, description: ModelDescription, graphs: Mapping[str, GraphInfo]
) -> None:
    for entry, known in CHOICES.items():
        value = getattr(description, entry)
        if value not in known:
            raise BundleError(
                f"{folder / DESCRIPTION}: {entry} is {value!r}; expected one of: "
                f"{', '.join(known)}. {REPAIR.format(folder=folder)}"
            )
    unknown = set(description.warps) - set(WARPS)
    if unknown:
        raise BundleError(
            f"{folder / DESCRIPTION}: warps lists {', '.join(sorted(unknown))}; expected some of: "
            f"{', '.join(WARPS)}. {REPAIR.format(folder=folder)}"
        )
    needed = {"keyframe"} if description.warps else {"detect"}
    if "learned" in description.warps:
        needed.add("non_keyframe")
    if {"dis", "none"} & set(description.warps):
        needed.add("non_keyframe_flow")
    if description.postprocess == "host" and description.model.mask_rescoring:
        needed.add("rescore")
    given = {name for graph in graphs.values() for name in graph.outputs}
    needed |= {taker for name, taker in ON_DEMAND.items() if name in given}
    missing = needed - set(graphs)
    if missing:
        raise BundleError(
            f"{folder / DESCRIPTION} lists no graph {' and no graph '.join(sorted(missing))}. "
            f"{REPAIR.format(folder=folder)}"
        )


def _tensors(entries: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        str(name): TensorInfo(tuple(int(n) for n in entry["shape"]), str(entry["dtype"]))
        for name, entry in entries.items()
    }


def write_bundle(
    folder: str | Path,
    model: ModelConfig,
    *,
    postprocess: str,
    max_detections: int,
    graphs: Mapping[str, bytes | Path],
    source: Mapping[str, str],
    versions: Mapping[str, str],
    warps: Sequence[str] = (),
    target: str = "onnxruntime",
    precision: str = "fp32",
    batch: int = 1,
    quantization: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write a bundle; it is there in whole or not at all.

    A bundle of the same folder is replaced; other files in it stay.

    Args:
        folder: where to write.
        model: the network.
        postprocess: `host` or `graph`.
        max_detections: most detections of one image.
        graphs: name to ONNX model, as bytes or as the path of a file.
        source: name and SHA-256 of the checkpoint.
        versions: of the libraries that took part.
        warps: see `ModelDescription`.
        target: the same.
        precision: the same.
        batch: the same.
        quantization: plain values that say how an int8 bundle was made.

    Raises:
        BundleError: the folder holds something else, or cannot be written.
        BackendError: ONNX Runtime, which reads the graphs' inputs and outputs, is absent or
            refuses a graph.
    """
    from yolact_ros.runtime.backends.onnxruntime import describe_graph

    folder = Path(folder)
    if folder.exists() and not is_bundle(folder) and (folder.is_file() or any(folder.iterdir())):
        raise BundleError(
            f"{folder} exists and is no bundle; choose another place, or remove it first."
        )
    entries: dict[str, Any] = {}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            for name, graph in graphs.items():
                content = graph if isinstance(graph, bytes) else Path(graph).read_bytes()
                (new / f"{name}.onnx").write_bytes(content)
                inputs, outputs = describe_graph(content)
                entries[name] = {
                    "file": f"{name}.onnx",
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "inputs": {key: to_mapping(info) for key, info in inputs.items()},
                    "outputs": {key: to_mapping(info) for key, info in outputs.items()},
                }
            description = {
                "format": FORMAT,
                "model": to_mapping(model),
                "postprocess": postprocess,
                "max_detections": max_detections,
                "warps": list(warps),
                "target": target,
                "precision": precision,
                "batch": batch,
                "graphs": entries,
                "source": dict(source),
                "versions": dict(versions),
            }
            if quantization is not None:
                description["quantization"] = dict(quantization)
            (new / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
            _put_in_place(new, folder, Path(scratch) / "old")
    except OSError as error:
        raise BundleError(f"The bundle {folder} cannot be written: {error}.") from error
    return Bundle.open(folder)


def _put_in_place(new: Path, folder: Path, old: Path) -> None:
    """Move `new` to `folder`; files of `folder` that are no part of a bundle move along.

    Engines of the graphs that are replaced would serve nobody.
    """
    if folder.exists():
        for path in folder.iterdir():
            stale = path.suffix == ".onnx" or ".engine" in path.suffixes
            if path.name != DESCRIPTION and not stale:
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, new / path.name)
        folder.rename(old)
    new.rename(folder)
