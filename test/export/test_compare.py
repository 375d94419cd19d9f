"""Graphs are compared with torch regardless of how each library orders equal values."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from yolact_ros.export.compare import relative_errors  # noqa: E402
from yolact_ros.export.graphs import Graph  # noqa: E402


class Best(torch.nn.Module):
    def forward(self, scores):
        return scores.topk(20, dim=1)


def draw(seed):
    """Return scores of which about a third equal the best one."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(3, (2, 1000), generator=generator).float(),)


def test_of_equal_scores_the_first_ones_are_the_best():
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("TopK", ["scores", "k"], ["best", "places"], axis=1)],
            "best",
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (2, 1000))],
            [
                helper.make_tensor_value_info("best", TensorProto.FLOAT, (2, 20)),
                helper.make_tensor_value_info("places", TensorProto.INT64, (2, 20)),
            ],
            [helper.make_tensor("k", TensorProto.INT64, [1], [20])],
        ),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )
    graph = Graph("best", Best(), draw, ("scores",), ("best", "places"))
    errors = relative_errors(graph, model.SerializeToString())
    assert errors == {"best": 0, "places": 0}
