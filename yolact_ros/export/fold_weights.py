"""Fold constants in ONNX models: reshaped weights and batch normalisation.

torch's exporter folds plain convolutions, but not the reshaped weights of deformable ones, nor
batch normalisation after the operator DeformConv.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

# Operator -> indices of weights and bias among its inputs.
FOLDABLE = {"Conv": (1, 2), "DeformConv": (1, 3)}


def fold_weights(model: Any) -> None:
    """Fold an `onnx.ModelProto` in place; its results change only by rounding."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    uses.update(output.name for output in model.graph.output)
    _fold_reshapes(model, constants, uses)
    _fold_batch_norms(model, constants, uses)
    used = {name for node in model.graph.node for name in node.input}
    used |= {output.name for output in model.graph.output}
    kept = [tensor for name, tensor in constants.items() if name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    # The exporter's shape information is out of date for folded weights.
    infos = [value for value in model.graph.value_info if value.name not in constants]
    del model.graph.value_info[:]
    model.graph.value_info.extend(infos)


def _fold_reshapes(model: Any, constants: dict[str, Any], uses: Counter[str]) -> None:
    from onnx import numpy_helper

    nodes = []
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Reshape" and all(name in constants for name in node.input):
            values, shape = (numpy_helper.to_array(constants[name]) for name in node.input)
            if 0 not in shape:  # which would mean "unchanged"
                name = node.input[0] if uses[node.input[0]] == 1 else node.output[0]
                constants[name] = numpy_helper.from_array(values.reshape(shape), name)
                renamed[node.output[0]] = name
                uses[name] = uses[node.output[0]]
                continue
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _fold_batch_norms(model: Any, constants: dict[str, Any], uses: Counter[str]) -> None:
    from onnx import numpy_helper

    makers = {name: node for node in model.graph.node for name in node.output}
    nodes = []
    for node in model.graph.node:
        convolution = makers.get(node.input[0]) if node.input else None
        if (
            node.op_type != "BatchNormalization"
            or convolution is None
            or convolution.op_type not in FOLDABLE
            or uses[node.input[0]] != 1
            or not all(name in constants for name in node.input[1:])
        ):
            nodes.append(node)
            continue
        weight_index, bias_index = FOLDABLE[convolution.op_type]
        if convolution.input[weight_index] not in constants:
            nodes.append(node)
            continue
        scale, shift, mean, variance = (
            numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:]
        )
        weight = numpy_helper.to_array(constants[convolution.input[weight_index]])
        bias = np.zeros_like(scale)
        if len(convolution.input) > bias_index and convolution.input[bias_index]:
            bias = bias + numpy_helper.to_array(constants[convolution.input[bias_index]])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        folded = {
            weight_index: weight * factor.reshape(-1, *[1] * (weight.ndim - 1)),
            bias_index: (bias - mean) * factor + shift,
        }
        while len(convolution.input) <= bias_index:
            convolution.input.append("")
        name = convolution.input[weight_index]
        if uses[name] > 1:  # shared with another layer, which requires the original
            name = f"{node.output[0]}.weight"
        names = {weight_index: name, bias_index: f"{name.removesuffix('.weight')}.folded_bias"}
        for index, values in folded.items():
            array = values.astype(weight.dtype)
            constants[names[index]] = numpy_helper.from_array(array, names[index])
            convolution.input[index] = names[index]
        convolution.output[0] = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
