"""Read bundles: folders that hold an exported model, `model.json` beside its `*.onnx` graphs.

    {"format": 2, "model": ModelConfig, "detect_form": "on_demand" | "dense" | "with_nms" |
     "with_masks",
     "max_detections": N, "top_k": N, "warps": ["dis", "none"],
     "target": "onnxruntime" | "tensorrt", "precision": "fp32", "batch": 1,
     "graphs": {"detect": {"file": ..., "sha256": ..., "inputs": {name: {"shape", "dtype"}},
                           "outputs": {name: {"shape", "dtype"}}}, ...},
     "source": {"checkpoint": file name, "sha256": ...}, "versions": {library: version},
     "quantization": {...}, "checksum": SHA-256 of all other entries}

A dimension of -1 is free. `detect_form` specifies what the graph `detect` computes
(`runtime.detect_forms`). A bundle for video lists its `warps`, the ways in which features of a
keyframe can be warped to a later image; instead of `detect` it has `keyframe`, `non_keyframe_flow`
and, for the warp `learned`, `non_keyframe`. `target` specifies what the graphs were exported for;
`*.engine` files beside them belong to TensorRT (`runtime.backends.tensorrt.files`). `quantization`
exists only in an int8 bundle, for its reader (`export.int8_bundle`); `top_k` only where NMS is
inside the graph, and not in bundles of earlier versions, whose graphs use 200.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.config import WARPS, ModelConfig, model_from_mapping
from yolact_ros.errors import BackendError, BundleError, ConfigError
from yolact_ros.files import parse_json, read_file
from yolact_ros.runtime.backends import shapes_match
from yolact_ros.runtime.detect_forms import DETECT_FORMS
from yolact_ros.runtime.onnx_file import Tensors, inspect_onnx

FORMAT = 2
MAX_DESCRIPTION_BYTES = 16 << 20
MAX_GRAPH_BYTES = 2 << 30  # limit of protobuf
DESCRIPTION = "model.json"
TARGETS = ("onnxruntime", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")
# Features that a graph `keyframe` outputs for later images; `lateral` only with a learned flow.
FEATURES = ("x4", "x5", "lateral")
CHOICES = {"detect_form": tuple(DETECT_FORMS), "target": TARGETS, "precision": PRECISIONS}
REPAIR = "Copy the bundle again, or export it again: yolact export CHECKPOINT -o {folder}"


@dataclass(frozen=True)
class ModelDescription:
    """Describes a model for the pipeline, independent of the backend that runs it.

    Attributes:
        model: the network.
        detect_form: what the graph `detect` computes, a key of `DETECT_FORMS`.
        max_detections: maximum detections per image; settings may lower it.
        identity: first digits of the SHA-256 that identifies the model.
        warps: how features of a keyframe can be warped, best first; empty for single images only.
        target: what the graphs were exported for, one of `TARGETS`; ONNX Runtime runs all of them.
        precision: arithmetic precision of the graphs, one of `PRECISIONS`.
        batch: images per run; if above 1, it is the first dimension of every tensor.
        top_k: candidates per class for NMS inside the graph; None: the default of
            `PostprocessConfig`, or NMS is on the host.
    """

    model: ModelConfig
    detect_form: str
    max_detections: int
    identity: str = ""
    warps: tuple[str, ...] = ()
    target: str = "onnxruntime"
    precision: str = "fp32"
    batch: int = 1
    top_k: int | None = None


def supported_warps(model: ModelConfig) -> tuple[str, ...]:
    """Return the warps that a network supports: only `learned` requires a flow network."""
    return WARPS if model.flow is not None else tuple(w for w in WARPS if w != "learned")


@dataclass(frozen=True)
class TensorInfo:
    """Holds the shape and numpy dtype of one input or output; -1 is a free dimension."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class GraphInfo:
    """Describes one graph: its file with its SHA-256, and its tensors by name."""

    path: Path
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """Represents a bundle whose files are complete and unaltered.

    Attributes:
        folder: the bundle's folder.
        description: the model.
        graphs: graphs by name; those of images or those of video, those that complete `detect` in
            its form, and `rescore` for YOLACT++ unless it is inside `detect`.
        source: the checkpoint that the bundle was exported from.
        versions: versions of the libraries that exported it.
    """

    folder: Path
    description: ModelDescription
    graphs: Mapping[str, GraphInfo]
    source: Mapping[str, str]
    versions: Mapping[str, str]

    def read_graph(self, name: str) -> bytes:
        """Read the ONNX model of a graph, which must be unaltered since the bundle was opened.

        Raises:
            BackendError: the bundle has no such graph.
            BundleError: it cannot be read, or has been replaced in the meantime.
        """
        if name not in self.graphs:
            raise BackendError(
                f"The bundle {self.folder} does not have the graph {name!r}; it has: "
                f"{', '.join(self.graphs)}."
            )
        graph = self.graphs[name]
        content = read_file(graph.path, limit=MAX_GRAPH_BYTES, error=BundleError)
        if hashlib.sha256(content).hexdigest() != graph.sha256:
            raise BundleError(f"{graph.path} was replaced while the bundle was open; try again.")
        return content

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read `model.json` and check every file.

        Raises:
            BundleError: the folder or one of its files is missing, altered, or has another format.
        """
        folder = Path(folder)
        content, digest = _read_description(folder)
        where = folder / DESCRIPTION
        try:
            return cls._of(folder, content, digest)
        except ConfigError as error:
            raise BundleError(f"{where}: {error}") from error
        except BundleError as error:
            raise _damaged(folder, error) from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"lacks an entry or has a bad one ({type(error).__name__}: {error})."
            raise _damaged(folder, f"{where} {what}") from error

    @classmethod
    def _of(cls, folder: Path, content: Mapping[str, Any], digest: str) -> Bundle:
        """Check a description and the files that it names; the errors do not advise a repair."""
        where = folder / DESCRIPTION
        graphs = {
            str(name): _check_graph(folder, str(name), entry)
            for name, entry in content["graphs"].items()
        }
        description = ModelDescription(
            model=model_from_mapping(content["model"]),
            detect_form=str(content["detect_form"]),
            max_detections=_count(content, "max_detections", most=100_000),
            identity=digest[:12],
            warps=tuple(str(warp) for warp in content["warps"]),
            target=str(content["target"]),
            precision=str(content["precision"]),
            batch=_count(content, "batch", most=1024),
            top_k=_count(content, "top_k", most=5000) if "top_k" in content else None,
        )
        _check_completeness(where, description, graphs)
        _check_graphs(where, description, graphs)
        notes: list[Any] = [content.get(entry) for entry in ("source", "versions")]
        if not all(isinstance(note, dict) for note in notes):
            raise BundleError(f"{where}: source and versions are not objects.")
        # Last, because the messages above are more specific.
        if content.get("checksum") != checksum(content):
            raise BundleError(
                f"{where} was edited: its checksum does not match its other entries."
            )
        return cls(folder, description, graphs, *notes)


def is_bundle(path: str | Path) -> bool:
    """Return whether `path` is a folder with a `model.json`."""
    return (Path(path) / DESCRIPTION).is_file()


def _damaged(folder: Path, what: object) -> BundleError:
    """Return the error of a bundle that was damaged or edited, with advice."""
    return BundleError(f"{what} {REPAIR.format(folder=folder)}")


def _read_description(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the content of `model.json` and its SHA-256, which covers the graphs' own."""
    path = folder / DESCRIPTION
    if not folder.is_dir():
        raise BundleError(
            f"The bundle {folder} does not exist; expected a folder with {DESCRIPTION} in it. "
            "Create one with: yolact export CHECKPOINT -o BUNDLE"
        )
    if not path.exists():
        raise _damaged(folder, f"The folder {folder} is not a bundle: it has no {DESCRIPTION}.")
    try:
        raw = read_file(path, limit=MAX_DESCRIPTION_BYTES, error=BundleError)
        content = parse_json(raw, where=path, error=BundleError)
    except BundleError as error:
        raise _damaged(folder, error) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise BundleError(
            f"{path} has format {found!r}; this version of yolact_ros reads format {FORMAT}. "
            f"Export the bundle again: yolact export CHECKPOINT -o {folder}; or, if it comes from "
            "a newer version of yolact_ros, update this one."
        )
    return content, hashlib.sha256(raw).hexdigest()


def checksum(content: Mapping[str, Any]) -> str:
    """Compute the SHA-256 of a description's entries without the checksum itself."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _count(content: Mapping[str, Any], name: str, *, most: int) -> int:
    """Read a positive integer of a description.

    Raises:
        ValueError: it is not an integer, or out of bounds.
    """
    value = content[name]
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{name} is {value!r}; expected a whole number from 1 to {most}")
    return value


def _check_graph(folder: Path, name: str, entry: Mapping[str, Any]) -> GraphInfo:
    where, path = folder / DESCRIPTION, folder / entry["file"]
    if path.parent != folder:
        raise BundleError(
            f"{where}: graph {name!r} is in {entry['file']!r}; expected a plain file name."
        )
    with contextlib.suppress(OSError, ValueError):  # a name that no file can have
        if not path.exists():
            raise BundleError(f"{path} is missing.")
    content = read_file(path, limit=MAX_GRAPH_BYTES, error=BundleError)
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        raise BundleError(
            f"{path} was altered or is incomplete: its SHA-256 is {digest[:12]}..., {DESCRIPTION} "
            f"says {str(entry['sha256'])[:12]}..."
        )
    graph = GraphInfo(path, _tensors(entry["inputs"]), _tensors(entry["outputs"]), digest)
    try:
        inputs, outputs = inspect_onnx(content)
    except ValueError as error:
        raise BundleError(f"{path} {error}.") from error
    _compare(where, name, "inputs", graph.inputs, inputs)
    _compare(where, name, "outputs", graph.outputs, outputs)
    return graph


def _compare(
    where: Path, graph: str, side: str, listed: Mapping[str, TensorInfo], held: Tensors
) -> None:
    """Compare the description of a graph with the graph itself.

    A library that infers shapes may know more than the file: a free dimension matches any other.
    """
    if list(listed) != list(held):
        raise BundleError(
            f"{where}: {side} of the graph {graph!r} are {', '.join(listed) or 'none'}; the file "
            f"has {', '.join(held) or 'none'}."
        )
    for name, info in listed.items():
        shape, dtype = held[name]
        fits = shape is None or shapes_match(shape, info.shape)
        if not fits or dtype != info.dtype:
            raise BundleError(
                f"{where}: {name} of the graph {graph!r} is {info.dtype} of shape "
                f"{list(info.shape)}; the file has {dtype} of shape {list(shape or ())}."
            )


def _check_completeness(
    where: Path, description: ModelDescription, graphs: Mapping[str, GraphInfo]
) -> None:
    for entry, known in CHOICES.items():
        value = getattr(description, entry)
        if value not in known:
            raise BundleError(
                f"{where}: {entry} is {value!r}; expected one of: {', '.join(known)}."
            )
    if unknown := set(description.warps) - set(WARPS):
        raise BundleError(
            f"{where}: warps lists {', '.join(sorted(unknown))}; expected some of: "
            f"{', '.join(WARPS)}."
        )
    form = DETECT_FORMS[description.detect_form]
    needed = {"keyframe" if description.warps else "detect", *form.graphs}
    if "learned" in description.warps:
        needed.add("non_keyframe")
    if {"dis", "none"} & set(description.warps):
        needed.add("non_keyframe_flow")
    if description.model.mask_rescoring and not form.nms_inside:
        needed.add("rescore")
    if missing := needed - set(graphs):
        raise BundleError(f"{where} lacks these graphs: {', '.join(sorted(missing))}.")


def _check_graphs(
    where: Path, description: ModelDescription, graphs: Mapping[str, GraphInfo]
) -> None:
    """Compare the graphs of a bundle with the network that they claim to be.

    Raises:
        BundleError: the number of classes, prototypes or coefficients, the input size, or the
            outputs that post-processing reads do not match.
    """
    model = description.model
    height, width = model.input_size
    # Last dimensions of tensors, in any graph.
    expected: dict[str, tuple[int, ...]] = {
        "image": (description.batch, height, width, 3),
        "boxes": (4,),
        "coefficients": (model.num_prototypes,),
        "prototypes": (model.num_prototypes,),
        "class_scores": (model.num_classes,),
        "masks": model.prototype_size,
    }
    for graph, info in graphs.items():
        for name, tensor in (*info.inputs.items(), *info.outputs.items()):
            ending = expected.get(name, ())
            given = tensor.shape[len(tensor.shape) - len(ending) :]
            if not shapes_match(given, ending):
                raise BundleError(
                    f"{where}: {name} of the graph {graph!r} has shape {list(tensor.shape)}; the "
                    f"network {model.name!r} of {model.num_classes} classes and "
                    f"{model.num_prototypes} prototypes, with an input of {width}x{height}, has "
                    f"{['...', *ending]}."
                )
    main = graphs["keyframe" if description.warps else "detect"]
    missing = set(DETECT_FORMS[description.detect_form].outputs) - set(main.outputs)
    if missing or "image" not in main.inputs:
        what = ", ".join(sorted(missing)) or "the image"
        raise BundleError(f"{where}: the graph from the image to detections lacks {what}.")
    rows = {
        main.outputs[name].shape[-2]
        for name in ("class_scores", "boxes", "coefficients")
        if name in main.outputs and len(main.outputs[name].shape) > 1
    } - {-1}
    cells = sum(h * w for h, w in model.feature_sizes)
    priors = cells * model.priors_per_cell
    fits = len(rows) <= 1
    if features := main.outputs.get("head_features"):
        fits = rows <= {priors} and features.shape[-2:-1] in ((-1,), (cells,))
    if not fits:
        raise BundleError(
            f"{where}: the graph from the image to detections has {sorted(rows)} rows; expected "
            f"one for each of the {priors} priors."
        )


def _tensors(entries: Mapping[str, Any]) -> dict[str, TensorInfo]:
    tensors = {}
    for name, entry in entries.items():
        shape = entry["shape"]
        if not isinstance(shape, list) or any(type(n) is not int or n < -1 for n in shape):
            raise ValueError(f"the shape of {name} is {shape!r}")
        tensors[str(name)] = TensorInfo(tuple(shape), str(entry["dtype"]))
    return tensors
