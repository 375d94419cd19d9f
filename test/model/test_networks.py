"""Every backbone yields the right sizes at any input, and the right blocks are deformable."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from yolact_ros.config import BackboneConfig, ModelConfig  # noqa: E402
from yolact_ros.errors import ConfigError, WeightsError  # noqa: E402
from yolact_ros.model.backbones import BACKBONES, make_backbone  # noqa: E402
from yolact_ros.model.backbones.efficientnet import DepthwiseConv2d  # noqa: E402
from yolact_ros.model.backbones.resnet import is_deformable  # noqa: E402
from yolact_ros.model.graphs.detect import normalise  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights, load_imagenet_backbone  # noqa: E402
from yolact_ros.model.weights.official import OFFICIAL_VARIANTS, entry_shapes  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.variants import VARIANTS, variant  # noqa: E402

SMALL = ModelConfig("small", ("a", "b"), channels=8, num_prototypes=4)
CONFIGS = {
    "resnet50": BackboneConfig("resnet50"),
    "resnet50 deformable": BackboneConfig("resnet50", (0, 4, 6, 3)),
    "darknet53": BackboneConfig("darknet53"),
    "mobilenet_v2": BackboneConfig("mobilenet_v2"),
    "efficientnet_lite0": BackboneConfig("efficientnet_lite0"),
}


@pytest.fixture(scope="module", params=CONFIGS)
def backbone(request):
    return CONFIGS[request.param]


@pytest.mark.parametrize("size", [(201, 313), (32, 75), (96, 64)])
@torch.no_grad()
def test_outputs_fit_the_priors_at_any_height_and_width(backbone, size):
    config = replace(SMALL, backbone=backbone, input_size=size)
    network = Yolact(config).eval()
    output = network(torch.zeros(1, 3, *size))
    count = sum(3 * height * width for height, width in config.feature_sizes)
    assert network.priors.shape == (count, 4)
    assert output.box_offsets.shape == (1, count, 4)
    assert output.class_logits.shape == (1, count, 3)
    assert output.coefficients.shape == (1, count, 4)
    assert output.prototypes.shape == (1, *config.prototype_size, 4)
    assert output.semantic_logits.shape == (1, 2, *config.feature_sizes[0])


@torch.no_grad()
def test_a_backbone_has_its_channels_at_strides_8_16_32_and_can_stop_at_c3(backbone):
    module, channels = make_backbone(backbone)
    images = torch.randn(2, 3, 70, 45, generator=torch.Generator().manual_seed(0))
    c3, c4, c5 = module.eval()(images)
    assert c3.shape == (2, channels[0], 9, 6)
    assert c4.shape == (2, channels[1], 5, 3)
    assert c5.shape == (2, channels[2], 3, 2)
    torch.testing.assert_close(module.c3(images), c3, rtol=0, atol=0)


@torch.no_grad()
def test_a_batch_equals_its_single_images():
    network = Yolact(replace(SMALL, backbone=BackboneConfig("mobilenet_v2"), input_size=(64, 96)))
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    network.eval()
    batch = network(images)
    for index in range(2):
        for ours, alone in zip(batch, network(images[index : index + 1]), strict=True):
            torch.testing.assert_close(ours[index : index + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "entries", "values"),
    [  # counted in the reference's state dicts, counters of batch normalisation included
        ("yolact_base", 660, 50_262_519),
        ("yolact_im400", 660, 50_262_519),
        ("yolact_resnet50", 354, 31_218_116),
        ("yolact_resnet50_pascal", 354, 30_787_796),
        ("yolact_darknet53", 348, 47_818_851),
        ("yolact_plus_base", 705, 52_676_590),
        ("yolact_plus_resnet50", 405, 33_819_633),
        ("yolact_edge_youtubevis", 660, 49_975_639),
        # less the flow head at stride 8: pred1, upfeat2 and upflow2
        ("yolact_edge_vid", 697 - 7, 54_486_823 - 218_056),
        ("yolact_edge_vid_minimal", 693 - 7, 52_127_015 - 218_056),
    ],
)
def test_networks_have_as_many_weights_as_the_reference(name, entries, values):
    shapes = entry_shapes(variant(name))
    assert len(shapes) == entries
    assert sum(math.prod(shape) for shape in shapes.values()) == values


def deformable_places(name: str) -> list[tuple[int, int]]:
    """Return (stage, block) of every deformable convolution of a variant; stage 1 is C3."""
    words = [entry.split(".") for entry in entry_shapes(variant(name))]
    return sorted(
        {(int(w[2]), int(w[3])) for w in words if w[0] == "backbone" and "offset_mask" in w}
    )


def test_resnet50_is_deformable_in_all_13_blocks_of_c3_c4_c5():
    expected = [(1, block) for block in range(4)]
    expected += [(2, block) for block in range(6)]
    expected += [(3, block) for block in range(3)]
    assert deformable_places("yolact_plus_resnet50") == expected


def test_resnet101_is_deformable_in_every_third_block():
    expected = [(1, 0), (1, 3)]
    expected += [(2, block) for block in (0, 3, 6, 9, 12, 15, 18, 21)]
    expected += [(3, 0)]
    assert deformable_places("yolact_plus_base") == expected


def test_fewer_deformable_blocks_than_a_stage_has_are_its_last_ones():
    chosen = [is_deformable(block, 6, num_deformable=4, interval=1) for block in range(6)]
    assert chosen == [False, False, True, True, True, True]
    chosen = [is_deformable(block, 6, num_deformable=4, interval=2) for block in range(6)]
    assert chosen == [False, False, True, False, True, False]


def test_a_deformable_form_of_another_backbone_is_refused():
    with pytest.raises(ConfigError, match="no deformable blocks"):
        make_backbone(BackboneConfig("darknet53", (0, 1, 0, 0)))


def test_an_unknown_backbone_lists_the_known_ones():
    with pytest.raises(ConfigError, match="mobilenet_v2"):
        make_backbone(BackboneConfig("vgg16"))


def test_official_variants_cover_all_official_backbones():
    used = {VARIANTS[name].backbone.name for name in OFFICIAL_VARIANTS}
    assert used == set(BACKBONES) - {"efficientnet_lite0"}


def test_imagenet_weights_without_torchvision_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # makes its import fail
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    network = Yolact(replace(SMALL, input_size=(64, 64)))
    with pytest.raises(WeightsError, match="torchvision"):
        load_imagenet_backbone(network)


def test_a_backbone_without_known_imagenet_weights_is_refused():
    network = Yolact(replace(SMALL, backbone=BackboneConfig("darknet53"), input_size=(64, 64)))
    with pytest.raises(WeightsError, match="darknet53"):
        load_imagenet_backbone(network)


@torch.no_grad()
def test_a_new_deformable_level_of_the_neck_is_half_a_plain_one():
    """Initially no tap moves, and each has weight sigmoid(0) = 1/2."""
    config = replace(SMALL, backbone=CONFIGS["efficientnet_lite0"], input_size=(64, 96))
    plain = Yolact(config).eval()
    deformable = Yolact(replace(config, deformable_levels=(4, 5))).eval()
    initialise_weights(deformable)
    sums = [torch.randn(1, 8, 8 // 2**i, 12 // 2**i) for i in range(3)]
    for level in plain.fpn.predict_layers:
        torch.nn.init.zeros_(level.bias)
    deformable.load_state_dict(plain.state_dict(), strict=False)
    expected, got = plain.fpn.predict(*sums), deformable.fpn.predict(*sums)
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=0)
    for level in (1, 2):
        torch.testing.assert_close(got[level], expected[level] / 2)


@pytest.mark.parametrize("levels", [(2,), (4, 6)])
def test_only_p3_to_p5_can_be_deformable(levels):
    with pytest.raises(ConfigError, match="deformable_levels"):
        replace(SMALL, deformable_levels=levels)


def test_depthwise_convolutions_stay_in_float32_where_a_cpu_computes_in_bfloat16():
    torch.manual_seed(0)
    exact = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8)
    depthwise = DepthwiseConv2d(8, 8, 5, stride=2, padding=2, groups=8)
    depthwise.load_state_dict(exact.state_dict())
    x = torch.randn(2, 8, 13, 11).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x)
    expected = exact(x.float())
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected.bfloat16())
    y.sum().backward()
    expected.sum().backward()
    assert torch.allclose(depthwise.weight.grad, exact.weight.grad, rtol=1e-5)
    assert torch.equal(depthwise(x.float()), expected)


def test_normalisation_by_hand():
    config = replace(SMALL, pixel_mean=(1.0, 2.0, 3.0), pixel_std=(1.0, 2.0, 9.0))
    blue_green_red = torch.tensor([[[[11, 20, 30], [1, 2, 3]]]], dtype=torch.uint8)
    planes = normalise(blue_green_red, config)
    assert planes.tolist() == [[[[3.0, 0.0]], [[9.0, 0.0]], [[10.0, 0.0]]]]
