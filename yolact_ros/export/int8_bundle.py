"""Quantize a float32 bundle to int8: its convolutions, statically, except for sensitive ones.

The quantizer is that of ONNX Runtime. A layer is named after the weight of a convolution in the
network, without `.weight`; a layer of the head counts once for all levels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from yolact_ros.config import ModelConfig
from yolact_ros.errors import BackendError, BundleError
from yolact_ros.export.half_precision import to_half
from yolact_ros.export.to_onnx import quiet, widen_weights
from yolact_ros.runtime.bundle import TARGETS, Bundle
from yolact_ros.runtime.bundle_writer import write_bundle

# Images for measuring the error of each layer; more hardly change the ranking.
MEASURED_IMAGES = 4

# A layer stays in float if quantizing it alone changes an output by more than this fraction.
FLOAT_ABOVE = 0.05

# Outputs of a graph with NMS that have one row per detection.
DETECTION_ROWS = ("boxes", "scores", "mask_scores", "class_ids", "coefficients", "masks")

Feed = Mapping[str, np.ndarray]


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


class Quantizer:
    """Quantizes one graph according to the ranges of its tensors on calibration images.

    Attributes:
        layers: all layers that can be quantized, in the order of the graph.
    """

    def __init__(self, content: bytes, feeds: Sequence[Feed], *, target: str) -> None:
        """Measure the ranges.

        Args:
            content: serialized ONNX model with float32 weights.
            feeds: inputs of the graph for each calibration image.
            target: `onnxruntime` (uint8 activations) or `tensorrt` (symmetric int8 with biases in
                float, as its parser requires).

        Raises:
            BackendError: a library is missing, there are no images, or the target is unknown.
        """
        if target not in TARGETS:
            raise BackendError(
                f"int8 is not available for {target!r}; expected one of: {', '.join(TARGETS)}."
            )
        if not feeds:
            raise BackendError(
                "There are no calibration images; int8 requires some, preferably 100."
            )
        import onnx

        self._target = target
        self._model = onnx.load_model_from_string(content)
        self._nodes = _name_convolutions(self._model)
        self.layers = tuple(self._nodes)
        self._ranges = self._calibrate(feeds)

    def quantize(self, layers: Collection[str]) -> bytes:
        """Return the graph with the convolutions of `layers` quantized, all others in float."""
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        nodes = [node for layer in self.layers if layer in layers for node in self._nodes[layer]]
        if not nodes:
            return model.SerializeToString()
        symmetric = self._target == "tensorrt"
        with quiet():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                # On a CPU without VNNI, sums of full-range products saturate.
                reduce_range=not symmetric,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                tensors_range=self._ranges,
                nodes_to_quantize=nodes,
                nodes_to_exclude=[],
                op_types_to_quantize=["Conv"],
                extra_options={
                    "ActivationSymmetric": symmetric,
                    "WeightSymmetric": True,
                    "QuantizeBias": not symmetric,
                    # TensorRT fuses a convolution with the following layer; a pair of Q and DQ
                    # between them would prevent that and waste half of the range before a ReLU.
                    "OpTypesToExcludeOutputQuantization": ["Conv"] if symmetric else [],
                },
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            quantized = quantizer.model.model
        onnx.checker.check_model(quantized)
        return quantized.SerializeToString()

    def measure(self, feeds: Sequence[Feed]) -> dict[str, float]:
        """Measure the error of quantizing each layer alone.

        Args:
            feeds: inputs for a few images.

        Returns:
            Error by layer: largest root mean square difference of an output, relative to the root
            mean square of that output.
        """
        expected = run_graph(expose_raw_outputs(self._model.SerializeToString()), feeds)
        errors = {}
        for layer in tqdm(self.layers, desc="layers", unit="layer", leave=False):
            quantized = expose_raw_outputs(self.quantize([layer]))
            errors[layer] = output_error(run_graph(quantized, feeds), expected)
        return errors

    def _calibrate(self, feeds: Sequence[Feed]) -> Any:
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                bar = tqdm(feeds, desc="calibrate", unit="image", leave=False)
                self._feeds: Iterator[Feed] = iter(bar)

            def get_next(self) -> Feed | None:
                return next(self._feeds, None)

        import onnx

        with tempfile.TemporaryDirectory() as folder, quiet():
            path = Path(folder) / "graph.onnx"
            onnx.save_model(self._model, str(path))
            calibrator = create_calibrator(
                path,
                ["Conv"],
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod.MinMax,
            )
            calibrator.collect_data(Reader())
            ranges = calibrator.compute_data()
            del calibrator  # it keeps the file open
        return ranges


def run_graph(content: bytes, feeds: Sequence[Feed]) -> list[list[np.ndarray]]:
    """Run a serialized graph on each of `feeds` with ONNX Runtime; return all outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [session.run(None, dict(feed)) for feed in feeds]


def expose_raw_outputs(content: bytes) -> bytes:
    """Replace the detections among the outputs of a graph with NMS by the inputs of its NMS.

    Tiny changes of scores reorder the rows of detections, which therefore do not show the error of
    a layer; the scores, sizes and coefficients of all priors do, and the prototypes.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    if not any(node.op_type == "TopK" for node in model.graph.node):
        return content
    others = [value for value in model.graph.output if value.name not in DETECTION_ROWS]
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    names = {n.output[0] for n in model.graph.node if n.op_type in ("Softmax", "Exp", "Tanh")}
    if not any(value.name == "prototypes" for value in others):
        # Masks are a convolution of the prototypes, whose weights are coefficients.
        names |= {
            n.input[0]
            for n in model.graph.node
            if n.op_type == "Conv" and makers.get(n.input[1]) == "Reshape"
        }
    raw = [onnx.ValueInfoProto(name=name) for name in sorted(names)]  # in any order of nodes
    del model.graph.output[:]
    model.graph.output.extend([*others, *raw])
    return bytes(model.SerializeToString())


def output_error(
    outputs: Sequence[Sequence[np.ndarray]], expected: Sequence[Sequence[np.ndarray]]
) -> float:
    """Return the largest relative root mean square difference of an output over all images."""
    worst = 0.0
    for index in range(len(expected[0])):
        pairs = [
            (np.asarray(a[index], np.float64), np.asarray(b[index], np.float64))
            for a, b in zip(outputs, expected, strict=True)
        ]
        difference = sum(((a - b) ** 2).sum() for a, b in pairs)
        size = sum((b**2).sum() for _, b in pairs)
        worst = max(worst, float(np.sqrt(difference / max(size, 1e-12))))
    return worst


def _name_convolutions(model: Any) -> dict[str, list[str]]:
    """Name the nodes of convolutions with constant weights; return the node names by layer."""
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in weights:
            continue
        members = nodes.setdefault(node.input[1].removesuffix(".weight"), [])
        node.name = f"{node.input[1]}/{len(members)}"
        members.append(node.name)
    return nodes
