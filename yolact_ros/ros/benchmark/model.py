"""Write a model with known inference time and detections, to measure the node around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yolact_ros.config import BackendConfig, ModelConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.bundle_writer import write_bundle
from yolact_ros.runtime.segmenter import Segmenter

INSTANCES = 20
COLUMNS, ROWS = 5, 4  # of the instances
FILLED = 0.8  # fraction of the width and height of a grid cell that its instance fills
SIZE = 64  # of the network's input

# The multiplication of matrices takes up the time, and adds nothing to the boxes. It depends on
# the image; otherwise ONNX Runtime would fold it all into a constant.
GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
detect (uint8[1, 64, 64, 3] image) =>
    (float[20, 4] boxes, float[20, 1] class_scores, float[20, 1] coefficients,
     float[80, 80, 1] prototypes)
{
    start = Constant <value_ints = [0, 0, 0, 0]> ()
    end = Constant <value_ints = [1, 1, 1, 1]> ()
    byte = Slice (image, start, end)
    sample = Cast <to = 1> (byte)
    one = Constant <value_ints = [1]> ()
    brightness = Reshape (sample, one)
    sides = Constant <value_ints = [128, 128]> ()
    first_matrix = Expand (brightness, sides)
    products = Constant <value_int = PRODUCTS> ()
    go_on = Constant <value = bool {1}> ()
    last_matrix = Loop <body = one_product (
        int64 number, bool condition, float[128, 128] matrix
    ) => (bool next_condition, float[128, 128] next_matrix) {
        next_condition = Identity (condition)
        product = MatMul (matrix, matrix)
        lowest = Constant <value_float = 0.0> ()
        highest = Constant <value_float = 1.0> ()
        next_matrix = Clip (product, lowest, highest)
    }> (products, go_on, first_matrix)
    largest = ReduceMax <keepdims = 0> (last_matrix)
    zero = Constant <value_floats = [0.0]> ()
    nothing = Mul (largest, zero)
    grid = Constant <value = float[20, 4] {GRID}> ()
    boxes = Add (grid, nothing)
    class_scores = Constant <value = float[20, 1] {SCORES}> ()
    weights = Constant <value_ints = [20, 1]> ()
    coefficients = ConstantOfShape <value = float[1] {1}> (weights)
    cells = Constant <value_ints = [80, 80, 1]> ()
    prototypes = ConstantOfShape <value = float[1] {10}> (cells)
}
"""
TRIAL_PRODUCTS = 400
TRIALS = 30


def write_benchmark_model(folder: Path, *, inference_ms: float = 0.0) -> Path:
    """Write a bundle that finds the same 20 instances in every image.

    They form a grid of 5x4 without overlap; each fills its box.

    Args:
        folder: bundle folder to write.
        inference_ms: inference time on one thread of an otherwise idle machine; 0 = as short as
            possible.

    Raises:
        BackendError: onnx is not installed.
        BundleError: the bundle cannot be written.
    """
    if not inference_ms:
        return _write(folder, products=0)
    trial_ms = _shortest_inference_ms(_write(folder, products=TRIAL_PRODUCTS))
    return _write(folder, products=max(1, round(TRIAL_PRODUCTS * inference_ms / trial_ms)))


def grid_boxes() -> np.ndarray:
    """Return the boxes of the instances, (20, 4) float32 x1 y1 x2 y2 as image fractions."""
    rows, columns = np.divmod(np.arange(INSTANCES), COLUMNS)
    margin = (1.0 - FILLED) / 2.0
    left, top = (columns + margin) / COLUMNS, (rows + margin) / ROWS
    boxes = np.stack([left, top, left + FILLED / COLUMNS, top + FILLED / ROWS], axis=1)
    return boxes.astype(np.float32)


def _write(folder: Path, *, products: int) -> Path:
    try:
        import onnx.parser
    except ImportError as error:
        raise BackendError(
            "The benchmark builds its own model, which requires the library onnx; "
            "install it with: pip install onnx"
        ) from error
    text = GRAPH.replace("PRODUCTS", str(products))
    numbers = {"GRID": grid_boxes(), "SCORES": np.linspace(0.9, 0.6, INSTANCES)}
    for name, values in numbers.items():
        text = text.replace(name, ", ".join(map(str, values.ravel().tolist())))
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    model_config = ModelConfig("benchmark", ("thing",), input_size=(SIZE, SIZE), num_prototypes=1)
    write_bundle(
        folder,
        ModelDescription(model_config, "dense", INSTANCES),
        graphs={"detect": model.SerializeToString()},
        source={"checkpoint": "none", "sha256": ""},
        versions={"onnx": onnx.__version__},
    )
    return folder


def _shortest_inference_ms(bundle: Path) -> float:
    """Return the shortest of many runs; the others shared the CPU with something else."""
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    with Segmenter.open(bundle, backend=BackendConfig(threads=1)) as segmenter:
        return min(segmenter.segment(image).timings["inference"] for _ in range(TRIALS))
