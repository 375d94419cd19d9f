"""Prototypes and coefficients that masks cannot be made of are an error of the backend."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.segmenter import Segmenter

LEFT, RIGHT = [0.0, 0.0, 0.25, 1.0], [0.75, 0.0, 1.0, 1.0]
FINITE = "prototypes or coefficients that are not finite"


def outputs_of(form, tiny):
    """Return the outputs of each graph for a cup on the left and a spoon on the right."""
    outputs = tiny.host_outputs(
        [LEFT, RIGHT], [[0.9, 0.0], [0.0, 0.8]], prototypes=np.full((8, 10, 1), 5.0)
    )
    if form == "dense":
        return {"detect": outputs}
    if form in ("with_nms", "with_masks"):
        outputs |= {
            "scores": np.float32([0.9, 0.8]),
            "mask_scores": np.float32([0.9, 0.8]),
            "class_ids": np.int32([0, 1]),
            "masks": np.full((2, 8, 10), 255, np.uint8),
        }
        return {"detect": outputs}
    cells = sum(height * width for height, width in tiny.TINY.feature_sizes)
    count = tiny.TINY.priors_per_cell
    scores = np.zeros((cells * count, 2), np.float32)
    scores[0, 0], scores[count, 1] = 0.9, 0.8  # the first priors of the first two cells
    return {
        "detect": {
            "class_scores": scores,
            "head_features": np.zeros((cells, 4), np.float32),
            "p3": np.zeros((1, 4, 4, 5), np.float32),
        },
        "boxes_and_coefficients": {
            "boxes": np.tile(np.float32([LEFT, RIGHT])[:, None], (1, count, 1)),
            "coefficients": np.ones((2, count, 1), np.float32),
        },
        "prototypes": {"prototypes": outputs["prototypes"]},
    }


def segment(form, tiny, graphs):
    segmenter = Segmenter(tiny.FakeBackend(**graphs), tiny.describe(tiny.TINY, form=form))
    return segmenter.segment(np.zeros((32, 40, 3), np.uint8))


@pytest.mark.parametrize("form", ["dense", "on_demand", "with_nms", "with_masks"])
def test_undamaged_outputs_give_two_instances(tiny, form):
    found = segment(form, tiny, outputs_of(form, tiny))
    assert [len(found), *(one.mask.any() for one in found)] == [2, True, True]


@pytest.mark.parametrize(
    "form, graph, name, shape",
    [
        ("dense", "detect", "prototypes", (8, 10, 2)),
        ("dense", "detect", "prototypes", (8, 10)),
        ("dense", "detect", "prototypes", (1, 8, 10, 1)),
        ("dense", "detect", "coefficients", (2, 2)),
        ("dense", "detect", "coefficients", (1, 1)),
        ("on_demand", "prototypes", "prototypes", (8, 10, 2)),
        ("on_demand", "prototypes", "prototypes", (8, 12, 1)),
        ("on_demand", "prototypes", "prototypes", (1, 1, 1)),
        ("on_demand", "boxes_and_coefficients", "coefficients", (2, 3, 2)),
        ("on_demand", "boxes_and_coefficients", "coefficients", (1, 3, 1)),
        ("on_demand", "boxes_and_coefficients", "boxes", (2, 3, 3)),
        ("with_nms", "detect", "prototypes", (8, 9, 1)),
        ("with_nms", "detect", "coefficients", (3, 1)),
        ("with_nms", "detect", "coefficients", (2,)),
        ("with_masks", "detect", "masks", (2, 8, 9)),
        ("with_masks", "detect", "masks", (1, 8, 10)),
    ],
)
def test_a_wrong_shape_is_an_error_that_names_both_shapes(tiny, form, graph, name, shape):
    graphs = outputs_of(form, tiny)
    right = graphs[graph][name].shape
    assert shape != right
    graphs[graph][name] = np.ones(shape, graphs[graph][name].dtype)
    with pytest.raises(BackendError) as caught:
        segment(form, tiny, graphs)
    if (form, name) == ("dense", "prototypes"):  # of any size, but of the model's number
        right = ("any", "any", 1)
    assert f"returned {name} of shape {shape}; expected {right}" in str(caught.value)


def test_prototypes_of_another_program_may_have_another_size(tiny):
    graphs = outputs_of("dense", tiny)
    graphs["detect"]["prototypes"] = np.full((16, 20, 1), 5.0, np.float32)
    assert [one.mask.any() for one in segment("dense", tiny, graphs)] == [True, True]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["dense", "on_demand", "with_nms"])
def test_values_that_are_not_finite_are_an_error(tiny, form, value):
    for name, index in (("prototypes", (3, 9)), ("coefficients", (1,))):
        graphs = outputs_of(form, tiny)
        (graph,) = (outputs for outputs in graphs.values() if name in outputs)
        graph[name][index] = value
        with pytest.raises(BackendError, match=FINITE):
            segment(form, tiny, graphs)


@pytest.mark.parametrize("form", ["dense", "on_demand", "with_nms"])
def test_values_that_no_mask_reads_do_no_harm(tiny, form):
    """Prototypes outside all boxes, and all of them in an image without detections."""
    graphs = outputs_of(form, tiny)
    (graph,) = (outputs for outputs in graphs.values() if "prototypes" in outputs)
    graph["prototypes"][:, 5] = np.nan
    assert len(segment(form, tiny, graphs)) == 2
    graph["prototypes"][:] = np.nan
    for name in ("scores", "class_scores"):
        if name in graphs["detect"]:
            graphs["detect"][name][:] = 0
    assert len(segment(form, tiny, graphs)) == 0
