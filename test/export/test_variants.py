"""Every kind of network is exported with torch's results: one variant per backbone and layout."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from yolact_ros.config import FlowConfig  # noqa: E402
from yolact_ros.export.compare import relative_errors  # noqa: E402
from yolact_ros.export.graphs import host_graphs, video_graphs  # noqa: E402
from yolact_ros.export.to_onnx import export_module  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.variants import variant  # noqa: E402


@pytest.mark.parametrize(
    "name",
    ["yolact_darknet53", "yolact_edge_mobilenetv2", "yolact_edge_vid_resnet50", "tabletop"],
)
def test_a_variant_exports_with_the_same_numbers_at_an_odd_size(name):
    torch.manual_seed(0)
    config = replace(variant(name), input_size=(97, 133), channels=16, mask_rescoring=False)
    model = Yolact(config)
    initialise_weights(model)
    graphs = host_graphs(model.eval())
    for graph in graphs if name == "tabletop" else graphs[:1]:  # the others differ in `detect`
        content = export_module(
            graph.module,
            graph.example,
            inputs=graph.inputs,
            outputs=graph.outputs,
            free=graph.free,
        )
        assert max(relative_errors(graph, content, images=2).values()) < 1e-4


def test_the_graphs_of_video_have_the_numbers_of_torch_at_an_odd_size():
    torch.manual_seed(0)
    config = replace(
        variant("yolact_edge_vid_resnet50"),
        input_size=(97, 133),
        channels=16,
        flow=FlowConfig(channels=8),
    )
    model = Yolact(config)
    initialise_weights(model)
    for parameter in model.feature_transform.parameters():  # fresh, it would change nothing
        torch.nn.init.normal_(parameter, mean=0.02, std=0.1)
    graphs = video_graphs(host_graphs(model.eval()))
    video = ["keyframe", "non_keyframe_flow", "non_keyframe"]
    names = [*video, "boxes_and_coefficients", "prototypes"]
    assert [graph.name for graph in graphs] == names
    for graph in graphs[:3]:
        content = export_module(
            graph.module, graph.example, inputs=graph.inputs, outputs=graph.outputs
        )
        assert max(relative_errors(graph, content, images=2).values()) < 1e-4
