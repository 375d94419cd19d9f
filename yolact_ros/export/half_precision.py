"""Conversion of ONNX models to half precision, for runtimes that keep the types of the graph.

Inputs of convolutions are half, because they dominate the work. Everything else stays float: the
normalisation of the image, softmax, box decoding, scores and overlaps of NMS, and GridSample and
DeformConv with their sampling positions, since their inputs must have one type. In a quantized
graph, tensors between 8-bit layers are half as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from yolact_ros.errors import BackendError
from yolact_ros.runtime.bundle import FEATURES

# Inputs and outputs of a half graph that are half: prototypes, whose copy to the host takes half
# the time, and features, which stay on the device.
HALF_BORDERS = ("prototypes", *FEATURES)

CONVOLUTIONS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Index of the input with the sampling positions.
POSITIONS = {"GridSample": 1, "DeformConv": 2}
MOVEMENTS = {"Concat", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
# Their float values do not come from anything that could be half.
SOURCES = {"Constant", "ConstantOfShape", "Range"}

QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}

# Inputs that are float in every precision.
FLOAT_INPUTS = {"Resize": (1, 2)}


def to_half(
    content: bytes, *, half_borders: Collection[str], half_sampling: bool = False
) -> bytes:
    """Convert a float32 ONNX model.

    Args:
        content: serialized model.
        half_borders: inputs and outputs of the graph that become float16; all others keep their
            types.
        half_sampling: whether GridSample computes in half, which halves its memory traffic; its
            positions are computed in float and rounded to half.

    Returns:
        The converted model, serialized.

    Raises:
        BackendError: a weight is too large for half precision.
    """
    import onnx

    model = onnx.load_model_from_string(content)
    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = [*graph.value_info, *graph.input, *graph.output]
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    floats = {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT}
    _Rewriter(model.graph, floats, half_borders, half_sampling=half_sampling).rewrite()
    del model.graph.value_info[:]  # their types are out of date
    onnx.checker.check_model(model)
    return model.SerializeToString()


def half_nodes(
    graph: Any,
    floats: Collection[str],
    half_borders: Collection[str],
    *,
    half_sampling: bool = False,
) -> set[int]:
    """Return the indices of the nodes that compute in half; see the module docstring.

    Args:
        graph: an `onnx.GraphProto`.
        floats: names of its float32 tensors.
        half_borders: see `to_half`.
        half_sampling: see `to_half`.
    """
    nodes = list(graph.node)
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    convolutions = {i for i, node in enumerate(nodes) if node.op_type in CONVOLUTIONS}
    samplers = {
        i: POSITIONS[node.op_type] for i, node in enumerate(nodes) if node.op_type in POSITIONS
    }

    def before(i: int, *, skip: Collection[int] = ()) -> list[int]:
        names = [n for place, n in enumerate(nodes[i].input) if place not in skip and n in floats]
        return [makers[name] for name in names if name in makers]

    def walk(starts: Iterable[int], stops: Collection[int]) -> set[int]:
        """Return the nodes that feed `starts` with floats, up to `stops`, without positions."""
        seen: set[int] = set()
        waiting = list(starts)
        while waiting:
            i = waiting.pop()
            if i not in seen:
                seen.add(i)
                if i not in stops:
                    waiting += before(i, skip=(samplers[i],) if i in samplers else ())
        return seen

    ends = [makers[name] for name in half_borders if name in makers]
    quantizers = {i for i, node in enumerate(nodes) if node.op_type == "QuantizeLinear"}
    half = walk([*convolutions, *quantizers, *ends], ())
    positions = [nodes[i].input[place] for i, place in samplers.items()]
    half -= walk([makers[n] for n in positions if n in makers], convolutions) - convolutions
    half -= _normalisation(graph, nodes, floats, convolutions | quantizers)
    half -= {i for i in samplers if not (half_sampling and nodes[i].op_type == "GridSample")}
    half -= {i for i, node in enumerate(nodes) if node.op_type in SOURCES}
    for i, node in enumerate(nodes):  # in order, so that chains are followed
        made = before(i)
        if node.op_type in MOVEMENTS and node.output[0] in floats and made:
            fed = [name for name in node.input if name in floats]
            if len(made) == len(fed) and all(j in half for j in made):
                half.add(i)
    return half


def _normalisation(
    graph: Any, nodes: list[Any], floats: Collection[str], ends: Collection[int]
) -> set[int]:
    """Return the nodes between the image, the only input not in float, and the first layers."""
    reached = {value.name for value in graph.input if value.name not in floats}
    between = set()
    for i, node in enumerate(nodes):
        if i not in ends and reached & set(node.input):
            between.add(i)
            reached |= set(node.output)
    return between


class _Rewriter:
    """Rewrites nodes and inserts a Cast wherever a value changes its type."""

    def __init__(
        self, graph: Any, floats: set[str], half_borders: Collection[str], *, half_sampling: bool
    ) -> None:
        self.graph = graph
        self.floats = floats
        self.half_borders = set(half_borders)
        self.half = half_nodes(graph, floats, half_borders, half_sampling=half_sampling)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.scales = {n.input[1] for n in graph.node if n.op_type in QUANTIZERS}
        self.stored_half = {v.name for v in graph.input if v.name in self.half_borders & floats}
        self.outputs = {value.name for value in graph.output}
        self.casts: dict[str, str] = {}  # value -> its cast to the other type
        self.nodes: list[Any] = []

    def rewrite(self) -> None:
        from onnx import TensorProto

        old = list(self.graph.node)
        for i, node in enumerate(old):
            if i in self.half:
                self._write_half(node)
            else:
                self._write_float(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        for value in [*self.graph.input, *self.graph.output]:
            if value.name in self.half_borders & self.floats:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        self._keep_used_constants()

    def _write_half(self, node: Any) -> None:
        from onnx import TensorProto

        skip = FLOAT_INPUTS.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name in self.floats and place not in skip:
                node.input[place] = self._as_half(name)
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        self.nodes.append(node)
        for place, name in enumerate(node.output):
            if name not in self.floats:
                continue
            self.stored_half.add(name)
            if name in self.outputs - self.half_borders:  # the output stays float
                inner = f"{name}_half"
                node.output[place] = inner
                self.casts[name] = inner  # nodes in half use it directly
                self.stored_half.discard(name)
                self._cast(inner, name, TensorProto.FLOAT)

    def _write_float(self, node: Any) -> None:
        from onnx import TensorProto

        for place, name in enumerate(node.input):
            if name in self.stored_half:
                if name not in self.casts:
                    self.casts[name] = f"{name}_float"
                    self._cast(name, f"{name}_float", TensorProto.FLOAT)
                node.input[place] = self.casts[name]
        self.nodes.append(node)
        for place, name in enumerate(node.output):
            if name in self.outputs & self.half_borders & self.floats:
                inner = f"{name}_float"
                node.output[place] = inner
                self.casts[name] = inner
                self.stored_half.add(name)
                self._cast(inner, name, TensorProto.FLOAT16)

    def _as_half(self, name: str) -> str:
        from onnx import TensorProto, numpy_helper

        if name in self.stored_half:
            return name
        if name not in self.casts:
            self.casts[name] = f"{name}_half"
            if name in self.constants:
                values = numpy_helper.to_array(self.constants[name])
                if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
                    raise BackendError(
                        f"The weight {name} has a value of {np.abs(values).max():g}, beyond the "
                        "range of half precision (65504); export with --precision fp32."
                    )
                values = values.astype(np.float16)
                if name in self.scales:  # tiny scales must not become zero
                    values = np.maximum(values, np.finfo(np.float16).smallest_subnormal)
                half = numpy_helper.from_array(values, f"{name}_half")
                self.constants[half.name] = half
            else:
                self._cast(name, f"{name}_half", TensorProto.FLOAT16)
        return self.casts[name]

    def _cast(self, name: str, result: str, kind: int) -> None:
        from onnx import helper

        self.nodes.append(
            helper.make_node("Cast", [name], [result], name=f"cast_{result}", to=kind)
        )

    def _keep_used_constants(self) -> None:
        used = {name for node in self.nodes for name in node.input} | self.outputs
        kept = [tensor for name, tensor in self.constants.items() if name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
