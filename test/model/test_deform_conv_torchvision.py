"""Deformable convolution and ImageNet backbones match torchvision, where it can be imported."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")

try:
    with warnings.catch_warnings():  # it warns where it lacks image codecs
        warnings.simplefilter("ignore")
        import torchvision
        from torchvision.ops import deform_conv2d as torchvision_deform_conv2d
except (ImportError, RuntimeError) as error:  # RuntimeError: it was built for another torch
    pytest.skip(f"torchvision does not import: {error}", allow_module_level=True)

from yolact_ros.config import BackboneConfig  # noqa: E402
from yolact_ros.model.backbones import make_backbone  # noqa: E402
from yolact_ros.model.deform_conv import deform_conv2d  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_weights  # noqa: E402
from yolact_ros.model.weights.imagenet import is_deformable_part, rename_resnet  # noqa: E402


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (18, 35)])
def test_deform_conv_equals_torchvisions(stride, size):
    generator = torch.Generator().manual_seed(5)
    out = tuple(-(-side // stride) for side in size)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, weight, bias = draw(2, 4, *size), draw(6, 4, 3, 3), draw(6)
    offsets, mask = draw(2, 18, *out) * 2, draw(2, 9, *out).sigmoid()
    ours = deform_conv2d(x, offsets, mask, weight, bias, stride=stride)
    theirs = torchvision_deform_conv2d(
        x, offsets, weight, bias, stride=stride, padding=1, mask=mask
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_gradients_equal_torchvisions():
    generator = torch.Generator().manual_seed(6)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    values = draw(1, 2, 5, 6), draw(1, 18, 5, 6), draw(1, 9, 5, 6).sigmoid(), draw(3, 2, 3, 3)
    gradients = []
    for function in (
        lambda x, o, m, w: deform_conv2d(x, o, m, w, torch.zeros(3, dtype=x.dtype), stride=1),
        lambda x, o, m, w: torchvision_deform_conv2d(x, o, w, padding=1, mask=m),
    ):
        leaves = [value.clone().requires_grad_() for value in values]
        gradients.append(torch.autograd.grad(function(*leaves).square().sum(), leaves))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_torchvisions_entries_make_our_resnet_give_its_features():
    theirs = torchvision.models.resnet50(weights=None).eval()
    ours, _ = make_backbone(BackboneConfig("resnet50"))
    load_weights(ours.eval(), rename_resnet(theirs.state_dict()), source="torchvision")
    images = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        c3 = theirs.layer2(theirs.layer1(x))
        c4 = theirs.layer3(c3)
        expected = c3, c4, theirs.layer4(c4)
        for level, features in zip(ours(images), expected, strict=True):
            torch.testing.assert_close(level, features)


def test_torchvision_lacks_exactly_the_parts_of_deformable_convolutions():
    theirs = torchvision.models.resnet50(weights=None).state_dict()
    ours, _ = make_backbone(BackboneConfig("resnet50", (0, 4, 6, 3)))
    renamed = rename_resnet(theirs)
    own = ours.state_dict()
    assert set(own) - set(renamed) == {name for name in own if is_deformable_part(name)}
    assert set(renamed) <= set(own)
    assert all(renamed[name].shape == own[name].shape for name in renamed)
