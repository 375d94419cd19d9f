"""Deformable convolution, in both export forms, matches a slow loop of its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yolact_ros.model.deform_conv import (  # noqa: E402
    DeformConv2d,
    deform_conv2d,
    set_deform_conv_form,
)


def naive_deform_conv(x, offsets, mask, weight, bias, stride):
    """Compute the definition tap by tap in float64 (DCNv2's `modulated_deform_conv`)."""
    channels, height, width = x.shape
    out_channels = weight.shape[0]
    _, out_height, out_width = offsets.shape
    result = np.zeros((out_channels, out_height, out_width))
    for row in range(out_height):
        for column in range(out_width):
            for tap in range(9):
                y = row * stride - 1 + tap // 3 + offsets[2 * tap, row, column]
                x_position = column * stride - 1 + tap % 3 + offsets[2 * tap + 1, row, column]
                sample = np.zeros(channels)
                for yi in (math.floor(y), math.floor(y) + 1):
                    for xi in (math.floor(x_position), math.floor(x_position) + 1):
                        if 0 <= yi < height and 0 <= xi < width:
                            share = (1 - abs(y - yi)) * (1 - abs(x_position - xi))
                            sample += share * x[:, yi, xi]
                sample *= mask[tap, row, column]
                result[:, row, column] += weight[:, :, tap // 3, tap % 3] @ sample
    return result + bias[:, None, None]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 9), (1, 1), (5, 1), (6, 6)])
@pytest.mark.parametrize("spread", [0.0, 1.4, 16.8])
def test_deform_conv_equals_the_naive_loop(stride, size, spread):
    generator = torch.Generator().manual_seed(3)
    height, width = size
    out = -(-height // stride), -(-width // stride)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, weight, bias = draw(1, 4, height, width), draw(5, 4, 3, 3), draw(5)
    offsets, mask = draw(1, 18, *out) * spread, draw(1, 9, *out).sigmoid()
    ours = deform_conv2d(x, offsets, mask, weight, bias, stride=stride)[0].numpy()
    expected = naive_deform_conv(
        x[0].numpy(),
        offsets[0].numpy(),
        mask[0].numpy(),
        weight.numpy(),
        bias.numpy(),
        stride,
    )
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_deform_conv_without_shifts_and_full_weights_is_a_plain_convolution():
    x = torch.randn(2, 3, 8, 8)
    weight, bias = torch.randn(4, 3, 3, 3), torch.randn(4)
    ours = deform_conv2d(
        x, torch.zeros(2, 18, 8, 8), torch.ones(2, 9, 8, 8), weight, bias, stride=1
    )
    plain = torch.nn.functional.conv2d(x, weight, bias, padding=1)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


def test_a_fresh_layer_halves_a_plain_convolution():
    layer = DeformConv2d(3, 4)
    x = torch.randn(1, 3, 6, 6)
    plain = torch.nn.functional.conv2d(x, layer.weight, padding=1)
    torch.testing.assert_close(layer(x), plain / 2, atol=1e-5, rtol=1e-5)


def test_gradients_reach_input_shifts_weights_and_kernel():
    generator = torch.Generator().manual_seed(1)

    def draw(*shape, scale=1.0):
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        return values.requires_grad_()

    inputs = (
        draw(1, 2, 4, 5),
        draw(1, 18, 4, 5, scale=0.7),
        draw(1, 9, 4, 5),
        draw(3, 2, 3, 3),
        draw(3),
    )
    assert torch.autograd.gradcheck(
        lambda *values: deform_conv2d(*values, stride=1), inputs, eps=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("form", ["grid_sample", "deform_conv"])
def test_both_export_forms_give_the_same_results_in_onnx_runtime(tmp_path, form, stride):
    ort = pytest.importorskip("onnxruntime")
    from yolact_ros.export.to_onnx import export_module

    layer = DeformConv2d(4, 6, stride=stride).eval()
    torch.nn.init.normal_(layer.offset_mask.weight, std=0.5)
    x = torch.randn(1, 4, 9, 11)
    with torch.no_grad():
        expected = layer(x).numpy()
    set_deform_conv_form(layer, form)
    path = tmp_path / "layer.onnx"
    path.write_bytes(export_module(layer, (x,), inputs=["x"], outputs=["y"]))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="grid_sample"):
        set_deform_conv_form(DeformConv2d(1, 1), "plugin")
