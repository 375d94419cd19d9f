"""Boxes, coefficients and prototypes computed on demand equal those of the whole network."""

from __future__ import annotations

import types
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yolact_ros.config import BackboneConfig, ModelConfig, PostprocessConfig  # noqa: E402
from yolact_ros.export.graphs import example_image  # noqa: E402
from yolact_ros.model.boxes import decode_boxes  # noqa: E402
from yolact_ros.model.graphs.detect import normalise  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights, save_checkpoint  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.priors import neighbour_cells  # noqa: E402
from yolact_ros.runtime.backends.pytorch import TorchBackend  # noqa: E402
from yolact_ros.runtime.detect_forms import (  # noqa: E402
    DETECT_FORMS,  # noqa: E402
    predict_priors,
    prototypes_inside,
)
from yolact_ros.runtime.masks import assemble_masks, box_cells  # noqa: E402
from yolact_ros.runtime.postprocess import select_detections  # noqa: E402

MODEL = ModelConfig(
    "small",
    ("a", "b", "c"),
    backbone=BackboneConfig("mobilenet_v2"),
    input_size=(97, 165),
    channels=8,
    num_prototypes=4,
)


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """Run a checkpoint through the backend and through the whole network."""
    torch.manual_seed(0)
    network = Yolact(MODEL)
    initialise_weights(network)
    for parameter in network.parameters():  # biases too
        torch.nn.init.normal_(parameter, std=0.2)
    network.eval()
    path = tmp_path_factory.mktemp("checkpoint") / "small.pth"
    save_checkpoint(path, network)
    backend = TorchBackend(path)
    image = example_image(network, seed=3)
    with torch.no_grad():
        output = network(normalise(image, MODEL))
    dense = {
        "boxes": decode_boxes(output.box_offsets[0], network.priors).numpy(),
        "class_scores": output.class_logits[0].softmax(dim=-1)[:, 1:].numpy(),
        "coefficients": output.coefficients[0].numpy(),
        "prototypes": output.prototypes[0].numpy(),
    }
    found = backend.run("detect", {"image": image.numpy()}, keep=("head_features",))
    return backend, found, dense


def test_the_cells_around_each_cell_are_those_that_a_slow_loop_finds():
    table = neighbour_cells(replace(MODEL, input_size=(40, 300)))
    sizes = [(5, 38), (3, 19), (2, 10), (1, 5), (1, 3)]
    total = sum(rows * columns for rows, columns in sizes)
    assert table.shape == (total, 9)
    expected, first = [], 0
    for rows, columns in sizes:
        for cell in range(rows * columns):
            y, x = divmod(cell, columns)
            around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            expected.append(
                [
                    first + v * columns + u if 0 <= v < rows and 0 <= u < columns else total
                    for v, u in around
                ]
            )
        first += rows * columns
    assert table.tolist() == expected


def test_every_prior_is_where_the_whole_network_has_it(passed):
    backend, found, dense = passed
    np.testing.assert_allclose(found["class_scores"], dense["class_scores"], atol=1e-6)
    priors = np.random.default_rng(0).permutation(len(dense["boxes"]))
    boxes, coefficients = predict_priors(backend, found["head_features"], priors, model=MODEL)
    np.testing.assert_allclose(boxes, dense["boxes"][priors], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(coefficients, dense["coefficients"][priors], atol=1e-5)


def test_no_priors_yield_no_boxes(passed):
    backend, found, _ = passed
    boxes, coefficients = predict_priors(
        backend, found["head_features"], np.zeros(0, np.int64), model=MODEL
    )
    assert boxes.shape == (0, 4)
    assert coefficients.shape == (0, 4)


@pytest.mark.parametrize("nms", ["fast", "cross_class", "greedy"])
@pytest.mark.parametrize("threshold", [0.3, 1.0])
def test_the_same_detections_are_chosen(passed, nms, threshold):
    backend, found, dense = passed
    config = PostprocessConfig(nms=nms, score_threshold=threshold, top_k=30)
    expected = select_detections(dense, config)

    def predict(priors):
        assert (np.diff(priors) > 0).all()  # none twice
        return predict_priors(backend, found["head_features"], priors, model=MODEL)

    ours = select_detections({"class_scores": found["class_scores"]}, config, predict=predict)
    assert (len(ours) > 3) == (threshold < 1)
    assert ours.class_ids.tolist() == expected.class_ids.tolist()
    np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(ours.boxes, expected.boxes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.coefficients, expected.coefficients, atol=1e-5)


@pytest.mark.parametrize(
    "boxes",
    [
        [[0.3, 0.4, 0.4, 0.6], [0.35, 0.3, 0.5, 0.45]],
        [[-0.2, -0.1, 0.05, 0.1]],
        [[0.9, 0.95, 1.3, 1.1]],
        [[0.5, 0.0, 0.55, 1.0], [2.0, 2.0, 3.0, 3.0]],
        [[0.0, 0.0, 1.0, 1.0]],
    ],
    ids=["inside", "top left", "bottom right", "a column, and one outside", "all"],
)
def test_prototypes_inside_boxes_are_those_of_the_whole_image(passed, boxes):
    backend, found, dense = passed
    cells = box_cells(np.array(boxes, np.float32), MODEL.prototype_size)
    ours = prototypes_inside(backend, found["p3"], cells, model=MODEL)
    assert ours.shape == dense["prototypes"].shape
    for x1, y1, x2, y2 in cells:
        expected = dense["prototypes"][y1:y2, x1:x2]
        np.testing.assert_allclose(ours[y1:y2, x1:x2], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("crop", [True, False])
def test_every_form_of_detect_gives_the_same_masks(passed, crop):
    backend, found, dense = passed
    config = PostprocessConfig(score_threshold=0.3, crop_masks=crop)
    selection = select_detections(dense, config)
    rows = {name: getattr(selection, name) for name in DETECT_FORMS["with_nms"].outputs[:-1]}
    soft = assemble_masks(dense["prototypes"], selection.coefficients, selection.boxes)
    outputs = {
        "on_demand": found,
        "dense": dense,
        "with_nms": {**rows, "prototypes": dense["prototypes"]},
        "with_masks": {**rows, "masks": (soft.dense() * 255).round().astype(np.uint8)},
    }
    assert outputs.keys() == DETECT_FORMS.keys()
    masks = {}
    for name, kind in DETECT_FORMS.items():
        form = kind(MODEL)
        assert set(form.outputs) <= set(outputs[name])
        chosen = form.select(outputs[name], config, backend)
        soft = form.soft_masks(outputs[name], chosen, config, backend)
        masks[name] = soft.dense()
    assert len(masks["dense"]) > 3
    assert (masks["dense"] == masks["with_nms"]).all()
    np.testing.assert_allclose(masks["on_demand"], masks["dense"], rtol=1e-4, atol=1e-4)
    if crop:
        step = 0.5 / 255 + 1e-6
        np.testing.assert_allclose(masks["with_masks"], masks["dense"], rtol=0, atol=step)


def test_a_gpu_computes_all_prototypes_unless_there_is_no_box(passed):
    """Their graph then has one shape for all images."""
    backend, found, dense = passed
    shapes = []

    def run(graph, inputs):
        shapes.append(inputs["p3"].shape)
        return backend.run(graph, inputs)

    gpu = types.SimpleNamespace(on_gpu=True, run=run)
    form = DETECT_FORMS["on_demand"](MODEL)
    boxes = np.array([[0.2, 0.2, 0.3, 0.3]], np.float32)
    prototypes = form.prototypes(found, boxes, gpu)
    np.testing.assert_allclose(prototypes, dense["prototypes"], rtol=1e-4, atol=1e-4)
    assert not form.prototypes(found, boxes[:0], gpu).any()
    assert shapes == [found["p3"].shape]


def test_without_a_box_no_prototype_is_computed(passed):
    _, found, _ = passed
    for cells in (np.zeros((0, 4), np.int64), np.array([[5, 5, 5, 9]])):
        assert not prototypes_inside(None, found["p3"], cells, model=MODEL).any()
