"""Read inputs and outputs of an ONNX file without a library, and check its weights.

The file is walked by its protobuf encoding (https://protobuf.dev/programming-guides/encoding/)
with the field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. A robot does not
have `onnx`, and ONNX Runtime does not expose weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Fields that contain a graph, node, function, attribute or tensor, by their parent.
_NESTED = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse", 11: "input", 12: "output"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 16: "bfloat16",
}  # fmt: skip
_RAW = {1: "<f4", 10: "<f2", 11: "<f8"}
_DEEPEST = 40


# Name -> shape and numpy dtype; -1 is a free dimension, None an unknown shape.
Tensors = dict[str, tuple[tuple[int, ...] | None, str]]


def inspect_onnx(content: bytes) -> tuple[Tensors, Tensors]:
    """Read the inputs and outputs that a graph declares, and check every tensor of the file.

    Scalar infinities are allowed as bounds and fill values; NaN is not.

    Raises:
        ValueError: the file is not protobuf, has weights in another file, or has weights that
            are NaN or infinite. The message continues a sentence that names the file.
    """
    inputs: Tensors = {}
    outputs: Tensors = {}
    data = memoryview(content)
    for kind, start, end, depth in _walk(data, "model", 0, len(data), 0):
        if kind == "tensor":
            _check_tensor(data, start, end)
        elif kind in ("input", "output") and depth == 2:
            name, info = _value_info(data, start, end)
            (inputs if kind == "input" else outputs)[name] = info
    return inputs, outputs


def _walk(
    data: memoryview, kind: str, start: int, end: int, depth: int
) -> Iterator[tuple[str, int, int, int]]:
    """Yield the kind, position and depth of every nested message, outer ones first."""
    if depth > _DEEPEST:
        raise ValueError(f"is nested deeper than {_DEEPEST} levels")
    nested = _NESTED.get(kind, {})
    for number, wire, first, last in _fields(data, start, end):
        if wire == 2 and number in nested:
            yield nested[number], first, last, depth + 1
            yield from _walk(data, nested[number], first, last, depth + 1)


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type and position of each field; of a varint, its value and 0."""
    offset = start
    while offset < end:
        key, offset = _varint(data, offset, end)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, offset = _varint(data, offset, end)
            yield number, wire, value, 0
            continue
        if wire == 2:
            length, offset = _varint(data, offset, end)
        else:
            length = {1: 8, 5: 4}.get(wire, end)  # ONNX has no other wire types
        if not 0 <= length <= end - offset:
            raise ValueError("is damaged: a field extends beyond the end")
        yield number, wire, offset, offset + length
        offset += length


def _varint(data: memoryview, offset: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if offset >= end:
            break
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise ValueError("is damaged: a number has no end")


def _check_tensor(data: memoryview, start: int, end: int) -> None:
    dtype, name, parts = 0, "", []
    for number, wire, first, last in _fields(data, start, end):
        if number == 2 and wire == 0:
            dtype = first
        elif number == 8 and wire == 2:
            name = _text(data, first, last)
        elif number == 13 or (number == 14 and wire == 0 and first):
            raise ValueError(
                "has weights in another file, which is not checked; save it with its weights "
                "inside"
            )
        elif number in (4, 9, 10) and wire != 0:
            parts.append((number, first, last))
    for number, first, last in parts:
        form = _RAW.get(dtype) if number == 9 else {4: "<f4", 10: "<f8"}[number]
        if form is None or (last - first) % np.dtype(form).itemsize:
            continue  # integers, or a length that the library will reject
        values = np.frombuffer(data[first:last], form)
        if not np.isfinite(values).all() and (len(values) > 1 or np.isnan(values).any()):
            raise ValueError(f"has NaN or infinity among its weights, in {name or 'a constant'!r}")


def _value_info(
    data: memoryview, start: int, end: int
) -> tuple[str, tuple[tuple[int, ...] | None, str]]:
    """Read name, shape and dtype of a ValueInfoProto."""
    name, shape, dtype = "", None, ""
    for number, wire, first, last in _fields(data, start, end):
        if number == 1 and wire == 2:
            name = _text(data, first, last)
        elif number == 2 and wire == 2:
            for inner, inner_wire, a, b in _fields(data, first, last):
                if inner == 1 and inner_wire == 2:
                    shape, dtype = _tensor_type(data, a, b)
    return name, (shape, dtype)


def _tensor_type(data: memoryview, start: int, end: int) -> tuple[tuple[int, ...] | None, str]:
    shape: tuple[int, ...] | None = None
    dtype = ""
    for number, wire, first, last in _fields(data, start, end):
        if number == 1 and wire == 0:
            dtype = _DTYPES.get(first, str(first))
        elif number == 2 and wire == 2:
            dimensions = []
            for _, dim_wire, a, b in _fields(data, first, last):
                fixed = [v for n, w, v, _ in _fields(data, a, b) if n == 1 and w == 0]
                dimensions.append(fixed[-1] if fixed and dim_wire == 2 else -1)
            shape = tuple(dimensions)
    return shape, dtype


def _text(data: memoryview, first: int, last: int) -> str:
    return bytes(data[first:last]).decode("utf-8", "replace")
