"""Implement modulated deformable convolution (DCNv2, Zhu et al. 2019) in standard operators.

Two forms of the same function, chosen by `DeformConv2d.form`:

* `grid_sample`: one bilinear `grid_sample` over all taps, then a 1x1 convolution. It trains in
  PyTorch on any device and exports to every runtime, including TensorRT.
* `deform_conv`: the ONNX operator DeformConv (opset 19), for export only. On a CPU it is
  faster than the other form with ONNX Runtime and OpenVINO; TensorRT has a plugin since 10.1.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORMS = ("grid_sample", "deform_conv")


class DeformConv2d(nn.Module):
    """Convolves 3x3, and shifts and weights each tap at each position.

    Channels of `offset_mask`, as in the YOLACT++ checkpoints: for tap k = 3 row + column, channel
    2k is its shift in y and channel 2k + 1 its shift in x, in input pixels; channel 18 + k is the
    logit of its weight. Samples outside the input are zero.
    """

    form: str = "grid_sample"

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.offset_mask = nn.Conv2d(in_channels, 27, 3, stride=stride, padding=1)
        bound = 1 / math.sqrt(in_channels * 9)
        nn.init.uniform_(self.weight, -bound, bound)
        # Initially all shifts are zero and all weights sigmoid(0) = 1/2 (reference: `dcn_v2.py`).
        nn.init.zeros_(self.offset_mask.weight)
        nn.init.zeros_(self.offset_mask.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W) float into (B, O, ceil(H / stride), ceil(W / stride))."""
        offset_mask = self.offset_mask(x)
        offsets, mask = offset_mask[:, :18], offset_mask[:, 18:].sigmoid()
        if self.form == "deform_conv":
            return self._onnx(x, offsets, mask)
        return deform_conv2d(x, offsets, mask, self.weight, self.bias, stride=self.stride)

    def _onnx(self, x: Tensor, offsets: Tensor, mask: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            "DeformConv",
            [x, self.weight, offsets, self.bias, mask],
            {
                "kernel_shape": [3, 3],
                "pads": [1, 1, 1, 1],
                "strides": [self.stride, self.stride],
                "dilations": [1, 1],
                "group": 1,
                "offset_group": 1,
            },
            dtype=x.dtype,
            shape=(x.shape[0], self.weight.shape[0], offsets.shape[2], offsets.shape[3]),
            version=19,
        )


def deform_conv2d(
    x: Tensor, offsets: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, *, stride: int
) -> Tensor:
    """Sample every tap bilinearly, weight it, and combine taps and channels by a 1x1 convolution.

    Args:
        x: (B, C, H, W) float.
        offsets: (B, 18, Ho, Wo) shifts in input pixels, interleaved y, x per tap.
        mask: (B, 9, Ho, Wo) weight of each tap, in [0, 1].
        weight: (O, C, 3, 3).
        bias: (O,).
        stride: step of the output grid in input pixels; the padding is 1.

    Returns:
        (B, O, Ho, Wo).
    """
    batch, channels, height, width = x.shape
    out_height, out_width = offsets.shape[2:]
    tap = torch.arange(3, dtype=x.dtype, device=x.device) - 1  # padding 1 shifts the origin by -1
    row = torch.arange(out_height, dtype=x.dtype, device=x.device) * stride
    column = torch.arange(out_width, dtype=x.dtype, device=x.device) * stride
    y = (tap.repeat_interleave(3)[:, None, None] + row[:, None]) + offsets[:, 0::2]
    x_position = (tap.repeat(3)[:, None, None] + column) + offsets[:, 1::2]
    # Coordinates of grid_sample with align_corners=False, which also hold for a one-pixel map.
    grid = torch.stack(
        [(2 * x_position + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1
    ).reshape(batch, 9 * out_height, out_width, 2)
    sampled = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    taps = sampled.reshape(batch, channels, 9, out_height, out_width) * mask[:, None]
    columns = taps.reshape(batch, channels * 9, out_height, out_width)
    return F.conv2d(columns, weight.reshape(weight.shape[0], channels * 9, 1, 1), bias)


def set_deform_conv_form(model: nn.Module, form: str) -> None:
    """Set the form of every deformable convolution in `model`.

    Raises:
        ValueError: the form is not one of `FORMS`.
    """
    if form not in FORMS:
        raise ValueError(f"Unknown form {form!r} of deformable convolution; expected {FORMS}.")
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            module.form = form
