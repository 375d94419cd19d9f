"""Quantize a float32 bundle to int8."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from yolact_ros.config import ModelConfig
from yolact_ros.errors import BackendError, BundleError
from yolact_ros.export.half_precision import to_half
from yolact_ros.export.to_int8 import (
    FLOAT_ABOVE,
    Quantizer,
    expose_raw_outputs,
    output_error,
    run_graph,
)
from yolact_ros.export.to_onnx import widen_weights
from yolact_ros.runtime.bundle import Bundle
from yolact_ros.runtime.bundle_writer import write_bundle

# Images for measuring the error of each layer; more hardly change the ranking.
MEASURED_IMAGES = 4


@dataclass(frozen=True)
class QuantizedGraph:
    """Holds the result of quantizing one graph.

    Attributes:
        graph: name of the graph.
        layers: number of layers that can be quantized.
        errors: error of quantizing each layer alone (`Quantizer.measure`); empty if the float
            layers were given.
        float_layers: layers left in float.
        error: error of the whole quantized graph, see `Quantizer.measure`.
        megabytes: size before and after.
    """

    graph: str
    layers: int
    errors: Mapping[str, float]
    float_layers: tuple[str, ...]
    error: float
    megabytes: tuple[float, float]


def quantize_bundle(
    source: str | Path,
    folder: str | Path,
    images: Sequence[np.ndarray],
    *,
    target: str = "onnxruntime",
    float_above: float = FLOAT_ABOVE,
    float_layers: Collection[str] | None = None,
) -> tuple[QuantizedGraph, ...]:
    """Quantize every graph with an image as input, and the graph of the prototypes.

    The other graphs, whose inputs are selected cells or masks, stay in float.

    Args:
        source: a bundle in float32.
        folder: folder of the new bundle.
        images: for calibration, each (1, H, W, 3) uint8 BGR of the network's input size, as
            `runtime.preprocess.prepare_image` returns them.
        target: `onnxruntime` or `tensorrt`, see `Quantizer`; the source was exported for it. For
            TensorRT the layers that are not quantized compute in half precision.
        float_above: maximum error of a quantized layer; others stay in float.
        float_layers: layers that stay in float; if given, no layer is measured.

    Raises:
        BundleError: the source is unusable, not in float32, or for another target.
        BackendError: a library is missing, there are no images, or no graph has a layer that
            `float_layers` names.
    """
    bundle = Bundle.open(source)
    description = bundle.description
    if description.precision != "fp32":
        raise BundleError(
            f"{source} computes in {description.precision}; int8 requires a bundle in fp32, "
            "as written by `yolact export` without --precision."
        )
    if description.target != target:
        raise BundleError(
            f"{source} was exported for {description.target}; expected {target}. Export it with: "
            f"yolact export CHECKPOINT -o BUNDLE --target {target}"
        )
    contents = {
        name: widen_weights(info.path.read_bytes()) for name, info in bundle.graphs.items()
    }
    feeds = {
        name: graph_feeds(
            name, contents, batches(images, description.batch), model=description.model
        )
        for name in contents
        if name == "prototypes" or "image" in bundle.graphs[name].inputs
    }
    done, known = [], set[str]()
    for name, graph_inputs in feeds.items():
        quantizer = Quantizer(contents[name], graph_inputs, target=target)
        measured = graph_inputs[:MEASURED_IMAGES]
        if float_layers is None:
            errors = quantizer.measure(measured)
            kept = tuple(layer for layer in quantizer.layers if errors[layer] > float_above)
        else:
            errors = {}
            kept = tuple(layer for layer in quantizer.layers if layer in float_layers)
            known |= set(quantizer.layers)
        content = quantizer.quantize([layer for layer in quantizer.layers if layer not in kept])
        error = output_error(
            *(run_graph(expose_raw_outputs(c), measured) for c in (content, contents[name]))
        )
        if target == "tensorrt":
            content = to_half(content)
        sizes = len(contents[name]) / 1e6, len(content) / 1e6
        done.append(QuantizedGraph(name, len(quantizer.layers), errors, kept, error, sizes))
        contents[name] = content
    unknown = set(float_layers or ()) - known
    if unknown:
        raise BackendError(
            f"There is no layer {', '.join(sorted(unknown))}; the layers are: "
            f"{', '.join(sorted(known))}."
        )
    write_bundle(
        folder,
        replace(description, precision="int8"),
        graphs=contents,
        source=bundle.source,
        versions=bundle.versions,
        quantization={
            "images": len(images),
            "float_above": float_above if float_layers is None else None,
            "graphs": {
                graph.graph: {
                    "float_layers": list(graph.float_layers),
                    "errors": {layer: round(e, 5) for layer, e in graph.errors.items()},
                }
                for graph in done
            },
        },
    )
    return tuple(done)


def batches(images: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Group images (1, H, W, 3) into (size, H, W, 3); the first images fill up the last group."""
    if not images:
        return []
    starts = range(0, len(images), size)
    return [
        np.concatenate([images[(start + i) % len(images)] for i in range(size)])
        for start in starts
    ]


def graph_feeds(
    name: str, contents: Mapping[str, bytes], images: Sequence[np.ndarray], *, model: ModelConfig
) -> list[dict[str, np.ndarray]]:
    """Return the inputs of one graph for each image.

    A graph that reuses features gets those of the same image and zero flow, so that its tensors
    have the same ranges as after a keyframe.
    """
    feeds = [{"image": image} for image in images]
    needed = _input_names(contents[name])
    if needed == {"image"}:
        return feeds
    import onnx

    first = contents["keyframe" if "keyframe" in contents else "detect"]
    names = [output.name for output in onnx.load_model_from_string(first).graph.output]
    flow = np.zeros((len(images[0]), 2, *model.feature_sizes[1]), np.float32)
    full = []
    for feed, values in zip(feeds, run_graph(first, feeds), strict=True):
        known = {**feed, "flow": flow, **dict(zip(names, values, strict=True))}
        full.append({key: known[key] for key in sorted(needed)})
    return full


def _input_names(content: bytes) -> set[str]:
    import onnx

    return {value.name for value in onnx.load_model_from_string(content).graph.input}
