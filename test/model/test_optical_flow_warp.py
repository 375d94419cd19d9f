"""Optical flow and the warp of features agree on units and directions."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yolact_ros.config import BackboneConfig, ModelConfig  # noqa: E402
from yolact_ros.model.feature_transform import warp_by_flow  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.runtime.video.optical_flow import OpticalFlow, flow_at_cells, grey_image  # noqa: E402

MODEL = ModelConfig(
    "small",
    ("a", "b"),
    backbone=BackboneConfig("mobilenet_v2"),
    channels=8,
    num_prototypes=4,
    input_size=(256, 320),
)


def seen(dx, dy):
    """Render (256, 320, 3) uint8 views of a scene from a camera at (dx, dy) pixels."""
    noise = np.random.default_rng(0).uniform(0, 255, (13, 16, 3)).astype(np.float32)
    scene = cv2.resize(noise, (480, 400), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    return np.ascontiguousarray(scene[60 + dy : 316 + dy, 70 + dx : 390 + dx].astype(np.uint8))[
        None
    ]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = Yolact(MODEL)
    initialise_weights(network)
    return network.eval()


def look(image, stride):
    """Return what a layer of this stride sees: cell i is the mean around pixel stride * i."""
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float()
    return torch.nn.functional.avg_pool2d(
        pixels, 2 * stride + 1, stride, padding=stride, count_include_pad=False
    )


# By whole cells, what is left is the flow's error; between cells, features are interpolated.
@pytest.mark.parametrize("dx, dy, share", [(32, 0, 0.02), (0, -28, 0.2), (-20, 13, 0.5)])
def test_features_warped_by_optical_flow_equal_those_of_the_moved_image(dx, dy, share):
    keyframe, current = seen(0, 0), seen(dx, dy)
    measured = OpticalFlow().between(grey_image(current), grey_image(keyframe))
    flow = torch.from_numpy(flow_at_cells(measured, MODEL))
    assert flow.shape == (1, 2, 16, 20)
    before, now = ([look(image, stride) for stride in (16, 32)] for image in (keyframe, current))
    # What is at pixel x now lay at x + dx of the keyframe.
    for ours, old, new, border in zip(
        warp_by_flow(*before, flow), before, now, (3, 2), strict=True
    ):
        inner = (..., slice(border, -border), slice(border, -border))
        error = (ours - new)[inner].square().mean().sqrt()
        still = (old - new)[inner].square().mean().sqrt()
        assert error < share * still


def test_an_exact_shift_warps_features_exactly():
    x4, x5 = torch.randn(1, 3, 16, 20), torch.randn(1, 3, 8, 10)
    flow = torch.zeros(1, 2, 16, 20)
    flow[:, 0], flow[:, 1] = 64, -32  # pixels: 4 and -2 cells of x4, 2 and -1 of x5
    moved4, moved5 = warp_by_flow(x4, x5, flow)
    torch.testing.assert_close(moved4[..., 2:, :-4], x4[..., :-2, 4:], rtol=0, atol=1e-4)
    torch.testing.assert_close(moved5[..., 1:, :-2], x5[..., :-1, 2:], rtol=0, atol=1e-4)
    assert not moved4[..., :2, :].abs().max() > 1e-4  # from outside the keyframe


def test_no_flow_keeps_features_at_an_odd_size():
    x4, x5 = torch.randn(2, 3, 35, 19), torch.randn(2, 3, 18, 10)
    for ours, old in zip(warp_by_flow(x4, x5, torch.zeros(2, 2, 35, 19)), (x4, x5), strict=True):
        torch.testing.assert_close(ours, old)


@torch.no_grad()
def test_a_flow_of_zero_changes_nothing_on_the_keyframe(network):
    smaller = replace(
        MODEL, input_size=(97, 133), backbone=BackboneConfig("resnet50", (0, 0, 0, 3))
    )
    other = Yolact(smaller)
    initialise_weights(other)
    for net in (network, other.eval()):
        images = torch.randn(
            2, 3, *net.config.input_size, generator=torch.Generator().manual_seed(0)
        )
        expected, kept = net.keyframe(images)
        flow = torch.zeros(2, 2, *net.config.feature_sizes[1])
        found = net.non_keyframe_by_flow(images, kept.x4, kept.x5, flow=flow)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
