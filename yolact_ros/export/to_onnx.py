"""Export torch modules to ONNX with standard operators."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from yolact_ros.export.fold_weights import fold_weights

# DeformConv requires 19. From 20 on, GridSample's mode `bilinear` is named `linear`, which the
# parsers up to TensorRT 11.1 do not know: they sample the nearest pixel without a warning.
OPSET = 19

# Weights with fewer values stay float32, because they take no space.
MIN_HALF_VALUES = 256


def export_module(
    module: Any,
    example: tuple[Any, ...],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Sequence[Mapping[int, str]] = (),
) -> bytes:
    """Export `module` as a self-contained ONNX model.

    Args:
        module: `torch.nn.Module` in evaluation mode.
        example: arguments, whose shapes become those of the graph.
        inputs: names of the arguments.
        outputs: names of the results.
        free: names of the free dimensions of each argument; equal names mean equal sizes.

    Returns:
        The serialized `ModelProto`, without traces of the exporting machine.
    """
    import onnx
    import onnxscript  # noqa: F401 - torch.onnx needs it
    import torch

    names = {name for dimensions in free for name in dimensions.values()}
    known = {name: torch.export.Dim(name, min=1) for name in names}
    dynamic = tuple({axis: known[name] for axis, name in axes.items()} for axes in free) or None
    with torch.no_grad(), quiet("torch.onnx._internal.exporter._registration"):
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            verbose=False,
        )
        buffer = io.BytesIO()
        assert program is not None  # None only for the old exporter
        program.save(buffer)  # type: ignore[arg-type]  # also accepts buffers
    model = onnx.load_model_from_string(buffer.getvalue())
    _strip_traces(model)
    fold_weights(model)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@contextlib.contextmanager
def quiet(logger_name: str | None = None) -> Iterator[None]:
    """Hide warnings and log messages, but not errors, that are meant for authors of libraries."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip_traces(model: Any) -> None:
    """Remove stack traces and module paths, which name files of the exporting machine."""
    for part in [model.graph, *model.functions]:
        for node in part.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        value.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


def halve_weights(content: bytes) -> bytes:
    """Store large float32 weights of an ONNX model as float16, which halves the file size.

    A Cast, which runtimes fold on loading, converts them back to float32: the arithmetic stays
    float32, and each weight changes by at most 0.05 % of its value.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_model_from_string(content)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < MIN_HALF_VALUES or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        stored = numpy_helper.from_array(values.astype(np.float16), f"{name}_half")
        casts.append(helper.make_node("Cast", [stored.name], [name], to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(stored)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def widen_weights(content: bytes) -> bytes:
    """Undo `halve_weights`: convert weights stored as float16 to float32."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(content)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT16:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()
