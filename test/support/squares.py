"""Write a tiny bundle that finds coloured rectangles, and variants that fail or take long."""

from __future__ import annotations

from pathlib import Path

import pytest

SIZE = 64  # of the network's input
CLASSES = ("blue", "green", "red")
PIXELS = {"blue": (255, 0, 0), "green": (0, 255, 0), "red": (0, 0, 255)}  # BGR

# One prior for each class. A pixel is of a class if its channel alone is bright; the box is the
# extent of those pixels. Prototypes: 20 where a cell is of the class, and a constant 10, which
# every class subtracts, so that soft masks are close to 0 and to 1.
SQUARES_GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
detect (uint8[1, 64, 64, 3] image) =>
    (float[3, 4] boxes, float[3, 3] class_scores, float[3, 4] coefficients,
     float[16, 16, 4] prototypes)
{
    pixels = Cast <to = 1> (image)
    limit = Constant <value_float = 127.5> ()
    is_bright = Greater (pixels, limit)
    bright = Cast <to = 1> (is_bright)
    channel_axis = Constant <value_ints = [3]> ()
    num_bright = ReduceSum <keepdims = 1> (bright, channel_axis)
    one_and_half = Constant <value_float = 1.5> ()
    is_pure = Less (num_bright, one_and_half)
    pure = Cast <to = 1> (is_pure)
    members = Mul (bright, pure)
    columns = ReduceMax <axes = [1], keepdims = 0> (members)
    rows = ReduceMax <axes = [2], keepdims = 0> (members)
    left = ArgMax <axis = 1, keepdims = 0> (columns)
    top = ArgMax <axis = 1, keepdims = 0> (rows)
    last_column = ArgMax <axis = 1, keepdims = 0, select_last_index = 1> (columns)
    last_row = ArgMax <axis = 1, keepdims = 0, select_last_index = 1> (rows)
    one = Constant <value_int = 1> ()
    right = Add (last_column, one)
    bottom = Add (last_row, one)
    corners = Concat <axis = 0> (left, top, right, bottom)
    corners_float = Cast <to = 1> (corners)
    corners_by_prior = Transpose <perm = [1, 0]> (corners_float)
    side = Constant <value_float = 64.0> ()
    boxes = Div (corners_by_prior, side)
    present = ReduceMax <axes = [1], keepdims = 0> (columns)
    best_scores = Constant <value = float[3, 3] {0.9, 0, 0, 0, 0.8, 0, 0, 0, 0.7}> ()
    class_scores = Mul (best_scores, present)
    coefficients = Constant <value = float[3, 4] {1, 0, 0, -1, 0, 1, 0, -1, 0, 0, 1, -1}> ()
    members_nchw = Transpose <perm = [0, 3, 1, 2]> (members)
    cells_nchw = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (members_nchw)
    cells_1hwc = Transpose <perm = [0, 2, 3, 1]> (cells_nchw)
    batch_axis = Constant <value_ints = [0]> ()
    cells = Squeeze (cells_1hwc, batch_axis)
    twenty = Constant <value_float = 20.0> ()
    strong_cells = Mul (cells, twenty)
    bias_shape = Constant <value_ints = [16, 16, 1]> ()
    bias = ConstantOfShape <value = float[1] {10}> (bias_shape)
    prototypes = Concat <axis = 2> (strong_cells, bias)
}
"""

# The same with finished detections at its end.
FINISHED_GRAPH = SQUARES_GRAPH.replace(
    "(float[3, 4] boxes, float[3, 3] class_scores,",
    "(float[3, 4] boxes, float[3] scores, float[3] mask_scores, int32[3] class_ids,",
).replace(
    "    coefficients = Constant",
    """    scores = ReduceMax <axes = [1], keepdims = 0> (class_scores)
    mask_scores = Identity (scores)
    class_ids = Constant <value = int32[3] {0, 1, 2}> ()
    coefficients = Constant""",
)


# The same for video: the corners are the features of a keyframe, and boxes of other images.
KEYFRAME_GRAPHS = {
    "keyframe": FINISHED_GRAPH.replace(
        "float[16, 16, 4] prototypes)",
        "float[16, 16, 4] prototypes, float[1, 1, 3, 4] x4, float[1, 1, 3, 4] x5)",
    ).replace(
        "    side = ",
        """    feature_shape = Constant <value_ints = [1, 1, 3, 4]> ()
    x4 = Reshape (corners_by_prior, feature_shape)
    x5 = Neg (x4)
    side = """,
    ),
    "non_keyframe_flow": FINISHED_GRAPH.replace(
        "[1, 64, 64, 3] image)",
        "[1, 64, 64, 3] image, float[1, 1, 3, 4] x4, float[1, 1, 3, 4] x5,"
        " float[1, 2, 4, 4] flow)",
    ).replace(
        "boxes = Div (corners_by_prior, side)",
        """difference = Sub (x4, x5)
    row_shape = Constant <value_ints = [3, 4]> ()
    twice = Reshape (difference, row_shape)
    both_sides = Add (side, side)
    boxes = Div (twice, both_sides)""",
    ),
}


def write_squares(
    folder: Path, graph: str | dict[str, str], *, form: str = "dense", batch: int = 1
) -> Path:
    """Write a bundle of `SQUARES_GRAPH`, a graph made from it, or `KEYFRAME_GRAPHS`."""
    onnx = pytest.importorskip("onnx")
    parser = pytest.importorskip("onnx.parser")

    from yolact_ros.config import ModelConfig
    from yolact_ros.runtime.bundle import ModelDescription
    from yolact_ros.runtime.bundle_writer import write_bundle

    graphs = {"detect": graph} if isinstance(graph, str) else graph
    models = {name: parser.parse_model(text) for name, text in graphs.items()}
    if batch > 1:
        models = {name: for_batches(model, batch) for name, model in models.items()}
    for model in models.values():
        onnx.checker.check_model(model)
    config = ModelConfig("squares", CLASSES, input_size=(SIZE, SIZE), num_prototypes=4)
    warps = ("dis", "none") if "keyframe" in models else ()
    write_bundle(
        folder,
        ModelDescription(config, form, 10, warps=warps, batch=batch),
        graphs={name: model.SerializeToString() for name, model in models.items()},
        source={"checkpoint": "none", "sha256": ""},
        versions={"onnx": onnx.__version__},
    )
    return folder


def for_batches(model, count: int):
    """Repeat the model for each image of a batch, which is the first dimension of every tensor."""
    import numpy as np
    from onnx import compose, helper, numpy_helper

    from yolact_ros.runtime.bundle import FEATURES

    def tensor(info, shape):
        kind = info.type.tensor_type
        dimensions = [dimension.dim_value for dimension in kind.shape.dim]
        return helper.make_tensor_value_info(info.name, kind.elem_type, shape(dimensions))

    parts = [compose.add_prefix(model, f"{i}/").graph for i in range(count)]
    nodes, inputs, outputs = [], [], []
    for place, info in enumerate(model.graph.input):
        pieces = [part.input[place].name for part in parts]
        nodes.append(helper.make_node("Split", [info.name], pieces, axis=0))
        inputs.append(tensor(info, lambda shape: [count, *shape[1:]]))
    nodes += [node for part in parts for node in part.node]
    for place, info in enumerate(model.graph.output):
        rows = [part.output[place].name for part in parts]
        if info.name in FEATURES:  # these have the dimension already
            outputs.append(tensor(info, lambda shape: [count, *shape[1:]]))
        else:
            nodes += [helper.make_node("Unsqueeze", [r, "first"], [f"{r}/row"]) for r in rows]
            rows = [f"{row}/row" for row in rows]
            outputs.append(tensor(info, lambda shape: [count, *shape]))
        nodes.append(helper.make_node("Concat", rows, [info.name], axis=0))
    first = numpy_helper.from_array(np.array([0]), "first")
    graph = helper.make_graph(nodes, "batch", inputs, outputs, [first])
    return helper.make_model(graph, ir_version=8, opset_imports=model.opset_import)


def graph_that_looks_at_its_first_sample(nodes: str) -> str:
    """Add nodes that compute the int64 `nothing` from `first_sample` to `SQUARES_GRAPH`."""
    return SQUARES_GRAPH.replace(
        "boxes = Div (corners_by_prior, side)",
        f"""flat_shape = Constant <value_ints = [-1]> ()
    samples = Reshape (image, flat_shape)
    zero = Constant <value_int = 0> ()
    first_byte = Gather (samples, zero)
    first_sample = Cast <to = 7> (first_byte)
    {nodes}
    corners_and_nothing = Add (corners_by_prior, nothing)
    boxes = Div (corners_and_nothing, side)""",
    )


def slow_graph(is_slow: str) -> str:
    """Add a product of large matrices where `is_slow` makes 1 of `first_sample`."""
    return graph_that_looks_at_its_first_sample(
        f"""one_int = Constant <value_int = 1> ()
    largest = Constant <value_int = 255> ()
    {is_slow}
    more = Constant <value_int = 5999> ()
    more_if_slow = Mul (is_slow, more)
    side_length = Add (more_if_slow, one_int)
    two = Constant <value_ints = [2]> ()
    matrix_shape = Expand (side_length, two)
    matrix = ConstantOfShape <value = float[1] {{0}}> (matrix_shape)
    product = MatMul (matrix, matrix)
    nothing = ReduceMax <keepdims = 0> (product)"""
    )
