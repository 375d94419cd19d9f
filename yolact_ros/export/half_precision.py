"""Convert ONNX models to half precision, for runtimes that keep the types of the graph.

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

CONVOLUTIONS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Index of the input with the sampling positions.
POSITIONS = {"GridSample": 1, "DeformConv": 2}
# Operators that do not round, so what they make of half values is half.
EXACT = {"Concat", "Gather", "Relu", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
# Their float values do not come from anything that could be half.
SOURCES = {"Constant", "ConstantOfShape", "Range"}

QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}

# Inputs that are float in every precision.
FLOAT_INPUTS = {"Resize": (1, 2)}


def to_half(
    content: bytes, *, half_borders: Collection[str] = FEATURES, half_sampling: bool = False
) -> bytes:
    """Convert a float32 ONNX model.

    Args:
        content: serialized model.
        half_borders: inputs and outputs of the graph that become float16; all others keep their
            types, because converting them on the host takes longer than copying twice the bytes.
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
    half = half_nodes(model.graph, floats, half_borders, half_sampling=half_sampling)
    _insert_casts(model.graph, half, floats, floats & set(half_borders))
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
        names = [n for slot, n in enumerate(nodes[i].input) if slot not in skip and n in floats]
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
    positions = [nodes[i].input[slot] for i, slot in samplers.items()]
    half -= walk([makers[n] for n in positions if n in makers], convolutions) - convolutions
    half -= _normalisation(graph, nodes, floats, convolutions | quantizers)
    half -= {i for i in samplers if not (half_sampling and nodes[i].op_type == "GridSample")}
    half -= {i for i, node in enumerate(nodes) if node.op_type in SOURCES}
    for i, node in enumerate(nodes):  # in order, so that chains are followed
        made = before(i)
        if node.op_type in EXACT and node.output[0] in floats and made:
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


def _insert_casts(
    graph: Any, half: Collection[int], floats: Collection[str], borders: Collection[str]
) -> None:
    """Make the nodes `half` compute in half precision; add a Cast wherever a type changes."""
    from onnx import TensorProto, helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    scales = {node.input[1] for node in graph.node if node.op_type in QUANTIZERS}
    outputs = {value.name for value in graph.output}
    made_half = {name for i in half for name in graph.node[i].output if name in floats}
    # A value keeps its name in one of the types; outputs have theirs in the type of the border.
    stored_half = (made_half - outputs) | set(borders)
    known = {value.name for value in graph.input} | constants.keys()
    nodes: list[Any] = []

    def named(value: str, *, in_half: bool) -> str:
        if in_half == (value in stored_half):
            return value
        return f"{value}_half" if in_half else f"{value}_float"

    def convert(value: str, *, to_half: bool) -> str:
        """Return the name of a value in a type, after a Cast or conversion where necessary."""
        result = named(value, in_half=to_half)
        if result not in known:
            known.add(result)
            if value in constants:
                tiny = value in scales  # must not become zero
                constants[result] = _half_constant(constants[value], result, positive=tiny)
            else:
                kind = TensorProto.FLOAT16 if to_half else TensorProto.FLOAT
                source = named(value, in_half=not to_half)
                nodes.append(
                    helper.make_node("Cast", [source], [result], name=f"cast_{result}", to=kind)
                )
        return result

    for i, node in enumerate(graph.node):
        in_half = i in half
        skip = FLOAT_INPUTS.get(node.op_type, ()) if in_half else ()
        for slot, name in enumerate(node.input):
            if name in floats and slot not in skip:
                node.input[slot] = convert(name, to_half=in_half)
        for attribute in node.attribute if in_half and node.op_type == "Cast" else ():
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        nodes.append(node)
        for slot, name in enumerate(node.output):
            if name in floats:
                node.output[slot] = named(name, in_half=in_half)
                known.add(node.output[slot])
                if name in outputs:
                    convert(name, to_half=name in borders)
    for value in [*graph.input, *graph.output]:
        if value.name in borders:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    used = {name for node in nodes for name in node.input} | outputs
    kept = [tensor for name, tensor in constants.items() if name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def _half_constant(tensor: Any, name: str, *, positive: bool) -> Any:
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    largest = np.abs(values).max(initial=0)
    if largest > np.finfo(np.float16).max:
        raise BackendError(
            f"The weight {tensor.name} has a value of {largest:g}, beyond the range of half "
            "precision (65504); export with --precision fp32."
        )
    values = values.astype(np.float16)
    if positive:
        values = np.maximum(values, np.finfo(np.float16).smallest_subnormal)
    return numpy_helper.from_array(values, name)
