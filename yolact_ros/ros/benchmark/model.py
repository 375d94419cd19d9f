"""Write a model with known inference time and detections, to measure the node around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yolact_ros.config import BackendConfig, ModelConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.bundle_writer import write_bundle
from yolact_ros.runtime.segmenter import Segmenter

INSTANCES = 20
COLUMNS, ROWS = 5, 4  # of the instances
FILLED = 0.8  # fraction of the width and height of a grid cell that its instance fills
SIZE = 64  # of the network's input
CELLS = 80  # prototype resolution in each direction
SIDE = 128  # of the matrices whose multiplication takes up the time
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
        import onnx
    except ImportError as error:
        raise BackendError(
            "The benchmark builds its own model, which requires the library onnx; "
            "install it with: pip install onnx"
        ) from error
    constants = {
        "grid": grid_boxes(),
        "class_scores": np.linspace(0.9, 0.6, INSTANCES, dtype=np.float32)[:, None],
        "coefficients": np.ones((INSTANCES, 1), np.float32),
        "prototypes": np.full((CELLS, CELLS, 1), 10.0, np.float32),
        "start": np.zeros(4, np.int64),
        "end": np.array([1, 1, 1, 1], np.int64),
        "zero": np.zeros(1, np.float32),
        "side": np.array([SIDE, SIDE], np.int64),
        "products": np.array(products, np.int64),
        "go_on": np.array(True),
        "one": np.array([1], np.int64),
    }
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    floats, booleans = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    matrix = [SIDE, SIDE]
    body = onnx.helper.make_graph(
        [
            make("Identity", ["condition"], ["next_condition"]),
            make("MatMul", ["matrix", "matrix"], ["product"]),
            make("Clip", ["product", "lowest", "highest"], ["next_matrix"]),
        ],
        "one_product",
        [
            tensor("number", onnx.TensorProto.INT64, []),
            tensor("condition", booleans, []),
            tensor("matrix", floats, matrix),
        ],
        [tensor("next_condition", booleans, []), tensor("next_matrix", floats, matrix)],
        [
            onnx.numpy_helper.from_array(np.array(0.0, np.float32), "lowest"),
            onnx.numpy_helper.from_array(np.array(1.0, np.float32), "highest"),
        ],
    )
    graph = onnx.helper.make_graph(
        [
            # Depends on the image; otherwise ONNX Runtime would fold it all into a constant.
            make("Slice", ["image", "start", "end"], ["byte"]),
            make("Cast", ["byte"], ["brightness_1111"], to=floats),
            make("Reshape", ["brightness_1111", "one"], ["brightness"]),
            make("Expand", ["brightness", "side"], ["first_matrix"]),
            make("Loop", ["products", "go_on", "first_matrix"], ["last_matrix"], body=body),
            make("ReduceMax", ["last_matrix"], ["largest"], keepdims=0),
            make("Mul", ["largest", "zero"], ["nothing"]),
            make("Add", ["grid", "nothing"], ["boxes"]),
        ],
        "detect",
        [tensor("image", onnx.TensorProto.UINT8, [1, SIZE, SIZE, 3])],
        [
            tensor("boxes", floats, [INSTANCES, 4]),
            *(
                tensor(name, floats, constants[name].shape)
                for name in ("class_scores", "coefficients", "prototypes")
            ),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]
    )
    onnx.checker.check_model(model)
    write_bundle(
        folder,
        ModelConfig(
            name="benchmark", classes=("thing",), input_size=(SIZE, SIZE), num_prototypes=1
        ),
        detect_form="dense",
        max_detections=INSTANCES,
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
