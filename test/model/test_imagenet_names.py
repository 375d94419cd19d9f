"""With weights named as in torchvision, our ResNet computes what torchvision's computes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from yolact_ros.config import BackboneConfig  # noqa: E402
from yolact_ros.model.backbones import make_backbone  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_weights  # noqa: E402
from yolact_ros.model.weights.imagenet import is_deformable_part, rename_resnet  # noqa: E402

# ResNet-50 (He et al. 2016, table 1): blocks, width and stride of each stage.
STAGES = {
    "layer1": (3, 64, 1),
    "layer2": (4, 128, 2),
    "layer3": (6, 256, 2),
    "layer4": (3, 512, 2),
}


def torchvision_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the entries of torchvision's `resnet50` by name."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    norms = {"bn1": 64}
    channels = 64
    for stage, (blocks, width, _) in STAGES.items():
        for number in range(blocks):
            block = f"{stage}.{number}"
            shapes[f"{block}.conv1.weight"] = (width, channels, 1, 1)
            shapes[f"{block}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{block}.conv3.weight"] = (4 * width, width, 1, 1)
            norms |= {f"{block}.bn1": width, f"{block}.bn2": width, f"{block}.bn3": 4 * width}
            if number == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norms[f"{block}.downsample.1"] = 4 * width
            channels = 4 * width
    for norm, size in norms.items():
        shapes |= {f"{norm}.{part}": (size,) for part in ("weight", "bias")}
        shapes |= {f"{norm}.{part}": (size,) for part in ("running_mean", "running_var")}
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def random_entries() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    entries = {}
    for name, shape in torchvision_shapes().items():
        value = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            value /= (shape[1] * shape[2] * shape[3]) ** 0.5
        elif name.endswith("running_var"):
            value = value.abs() + 0.5
        entries[name] = value
    return entries


def resnet50(entries: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """Compute C3, C4 and C5 from the entries alone, with the stride in the 3x3 convolutions."""

    def convolution(x, name, norm, stride=1):
        weight = entries[f"{name}.weight"]
        x = nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        parts = ("running_mean", "running_var", "weight", "bias")
        return nn.functional.batch_norm(x, *(entries[f"{norm}.{part}"] for part in parts))

    x = nn.functional.max_pool2d(convolution(x, "conv1", "bn1", 2).relu(), 3, 2, padding=1)
    levels = []
    for stage, (blocks, _, stage_stride) in STAGES.items():
        for number in range(blocks):
            block, stride = f"{stage}.{number}", stage_stride if number == 0 else 1
            y = convolution(x, f"{block}.conv1", f"{block}.bn1").relu()
            y = convolution(y, f"{block}.conv2", f"{block}.bn2", stride).relu()
            y = convolution(y, f"{block}.conv3", f"{block}.bn3")
            if number == 0:
                x = convolution(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
            x = (x + y).relu()
        levels.append(x)
    return levels[1:]


@torch.no_grad()
@pytest.mark.parametrize("size", [(65, 97), (32, 32)])
def test_our_resnet_gives_the_features_of_the_definition(size):
    entries = random_entries()
    ours, _ = make_backbone(BackboneConfig("resnet50"))
    load_weights(ours.eval(), rename_resnet(entries), source="torchvision")
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(8))
    for level, expected in zip(ours(images), resnet50(entries, images), strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-4)


def test_torchvision_lacks_exactly_the_parts_of_deformable_convolutions():
    ours, _ = make_backbone(BackboneConfig("resnet50", (0, 4, 6, 3)))
    renamed = rename_resnet(random_entries())
    own = ours.state_dict()
    assert set(own) - set(renamed) == {name for name in own if is_deformable_part(name)}
    assert set(renamed) <= set(own)
    assert all(renamed[name].shape == own[name].shape for name in renamed)
