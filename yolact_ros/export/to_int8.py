"""Quantize the convolutions of a graph statically, except for sensitive ones.

The quantizer is that of ONNX Runtime. A layer is named after the weight of a convolution in the
network, without `.weight`; a layer of the head counts once for all levels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from yolact_ros.errors import BackendError
from yolact_ros.export.to_onnx import quiet

TARGETS = ("onnxruntime", "tensorrt")

# A layer stays in float if quantizing it alone changes an output by more than this fraction.
FLOAT_ABOVE = 0.05

# Outputs of a graph with NMS that have one row per detection.
DETECTION_ROWS = ("boxes", "scores", "mask_scores", "class_ids", "coefficients", "masks")

Feed = Mapping[str, np.ndarray]


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
