"""The warp of features matches a slow loop, and frames between keyframes reuse them correctly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yolact_ros.config import BackboneConfig, FlowConfig, ModelConfig  # noqa: E402
from yolact_ros.model.feature_transform import flow_in_cells, warp  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402

SMALL = ModelConfig("small", ("a", "b"), channels=8, num_prototypes=4, flow=FlowConfig(channels=4))
BACKBONES = (
    BackboneConfig("resnet50", (0, 4, 6, 3)),
    BackboneConfig("darknet53"),
    BackboneConfig("mobilenet_v2"),
    BackboneConfig("efficientnet_lite0"),
)


def slow_warp(features: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Warp cell by cell, as defined: (C, h, w) features by (2, h, w) x, y in cells."""
    channels, height, width = features.shape
    result = np.zeros_like(features)
    for row in range(height):
        for column in range(width):
            x = column + displacement[0, row, column]
            y = row + displacement[1, row, column]
            for yi in (math.floor(y), math.floor(y) + 1):
                for xi in (math.floor(x), math.floor(x) + 1):
                    if 0 <= yi < height and 0 <= xi < width:
                        share = (1 - abs(y - yi)) * (1 - abs(x - xi))
                        result[:, row, column] += share * features[:, yi, xi]
    return result


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 4), (6, 1)])
def test_warp_equals_the_slow_loop(size):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(1, 3, *size, generator=generator, dtype=torch.float64)
    displacement = torch.randn(1, 2, *size, generator=generator, dtype=torch.float64) * 2
    expected = slow_warp(features[0].numpy(), displacement[0].numpy())
    np.testing.assert_allclose(warp(features, displacement)[0].numpy(), expected, atol=1e-12)


def test_the_warp_without_displacement_changes_nothing():
    features = torch.randn(2, 3, 35, 18)
    torch.testing.assert_close(warp(features, torch.zeros(2, 2, 35, 18)), features)


def test_a_displacement_points_to_where_a_cell_was():
    features = torch.arange(12.0).reshape(1, 1, 3, 4)
    displacement = torch.zeros(1, 2, 3, 4)
    displacement[:, 0] = 1  # every cell lay one column further right
    expected = torch.tensor([[[[1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]]]], dtype=torch.float32)
    torch.testing.assert_close(warp(features, displacement), expected)


@pytest.mark.parametrize("size", [(35, 35), (18, 24)])
def test_predicted_flow_warps_as_in_the_reference(size):
    generator = torch.Generator().manual_seed(3)
    height, width = size
    features = torch.randn(1, 4, *size, generator=generator)
    flow = torch.randn(1, 2, *size, generator=generator) * 3
    # YolactEdge: an align_corners=True grid from -1 to 1, plus an eighth of the flow.
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    grid = torch.stack([x, y], dim=-1) + flow[0].permute(1, 2, 0) / 8
    expected = torch.nn.functional.grid_sample(features, grid[None], align_corners=True)
    torch.testing.assert_close(warp(features, flow_in_cells(flow)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.name)
@pytest.mark.parametrize("size", [(96, 64), (75, 121)])
@torch.no_grad()
def test_a_fresh_transform_repeats_the_keyframe_on_the_same_image(backbone, size):
    network = Yolact(replace(SMALL, backbone=backbone, input_size=size))
    initialise_weights(network)
    network.eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    keyframe, features = network.keyframe(images)
    for ours, expected in zip(network.non_keyframe(images, features), keyframe, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def trained():
    """Return a small network whose transform is not the identity."""
    torch.manual_seed(1)
    network = Yolact(replace(SMALL, backbone=BackboneConfig("mobilenet_v2"), input_size=(96, 64)))
    for parameter in network.feature_transform.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@torch.no_grad()
def test_a_batch_of_frames_equals_single_frames(trained):
    generator = torch.Generator().manual_seed(4)
    first, second = (torch.randn(2, 3, 96, 64, generator=generator) for _ in range(2))
    _, features = trained.keyframe(first)
    batch = trained.partial_sums(second, features)
    for index in range(2):
        one = slice(index, index + 1)
        alone = trained.partial_sums(second[one], type(features)(*(f[one] for f in features)))
        for ours, expected in zip(batch, alone, strict=True):
            torch.testing.assert_close(ours[one], expected, rtol=1e-4, atol=1e-4)


def test_every_weight_of_the_transform_affects_the_result(trained):
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.randn(1, 3, 96, 64, generator=generator) for _ in range(2))
    with torch.no_grad():
        _, features = trained.keyframe(first)
    trained.non_keyframe(second, features).class_logits.square().sum().backward()
    silent = [
        name
        for name, parameter in trained.feature_transform.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() == 0
    ]
    assert silent == []


def test_a_frame_between_keyframes_does_not_use_the_deep_half_of_the_backbone(trained):
    generator = torch.Generator().manual_seed(6)
    images = torch.randn(1, 3, 96, 64, generator=generator)
    with torch.no_grad():
        _, features = trained.keyframe(images)
    trained.non_keyframe(images, features).class_logits.square().sum().backward()
    with_gradient = {
        name.split(".")[1]
        for name, parameter in trained.backbone.groups.named_parameters(prefix="groups")
        if parameter.grad is not None
    }
    assert with_gradient == {"1", "2", "3"}
    assert trained.fpn.lateral_layers[1].weight.grad is None


def test_without_refinement_there_is_none():
    config = replace(SMALL, flow=FlowConfig(channels=4, spa=False), input_size=(64, 64))
    transform = Yolact(config).feature_transform
    assert transform.refinement is None
    x4, x5 = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 2, 2)
    assert transform.refine(x4, x5, torch.randn(1, 8, 8, 8)) == (x4, x5)


def test_a_network_for_single_images_refuses_to_warp_features():
    network = Yolact(replace(SMALL, flow=None, input_size=(64, 64))).eval()
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        _, features = network.keyframe(images)
        with pytest.raises(ValueError, match="no flow network"):
            network.non_keyframe(images, features)
