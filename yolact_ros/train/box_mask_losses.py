"""Compute mask losses for instances with only a box (BoxInst, Tian et al. 2021, section 3)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from yolact_ros.train.mask_losses import TrainedMasks, dice_losses

# Neighbours are two mask pixels apart, and similar from this similarity on (section 3.2).
NEIGHBOUR_DISTANCE = 2
SMALLEST_SIMILARITY = 0.3
# Similarity is exp(-distance / 2) of two colours in CIE Lab.
COLOUR_SCALE = 2.0

# Linear sRGB to CIE XYZ, divided by the D65 white point (IEC 61966-2-1).
WHITE_D65 = (0.950456, 1.0, 1.088754)
XYZ_OF_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)


def box_mask_loss(masks: TrainedMasks, colours: Tensor) -> Tensor:
    """Sum the projection loss and the pairwise loss over all masks.

    Args:
        masks: masks at the size of the prototypes, with filled boxes as ground truth.
        colours: (3, Hp, Wp) float32 CIE Lab colours of the image, see `lab_colours`.
    """
    total = colours.new_zeros(())
    for i, (x1, y1, x2, y2), logits in zip(
        masks.instances, masks.regions, masks.logits, strict=True
    ):
        inside = masks.truths[i, y1:y2, x1:x2]
        total = total + projection_losses(logits.sigmoid(), inside).sum()
        total = total + pairwise_losses(logits, colours[:, y1:y2, x1:x2], inside).sum()
    return total


def projection_losses(soft: Tensor, inside: Tensor) -> Tensor:
    """Compare the extent of masks with that of their box along both axes.

    The dice loss compares the maximum of each column, and of each row, with 1 inside the box and
    0 outside.

    Args:
        soft: (n, h, w) masks after the sigmoid.
        inside: (h, w) float32, 1 inside the box and 0 outside.

    Returns:
        (n,) from 0 to 2.
    """
    columns = dice_losses(soft.amax(dim=1, keepdim=True), inside.amax(dim=0, keepdim=True))
    rows = dice_losses(soft.amax(dim=2, keepdim=True), inside.amax(dim=1, keepdim=True))
    return columns + rows


def pairwise_losses(logits: Tensor, colours: Tensor, inside: Tensor) -> Tensor:
    """Penalise different labels of neighbours with similar colours.

    The loss is the mean of -log(p q + (1 - p)(1 - q)) over all pairs of pixels that are two pixels
    apart along a row, a column or a diagonal, have a similarity of at least 0.3, and at least one
    of which lies inside the box. Without such a pair it is zero.

    Args:
        logits: (n, h, w) masks before the sigmoid.
        colours: (3, h, w) float32 CIE Lab.
        inside: (h, w) float32, 1 inside the box and 0 outside.

    Returns:
        (n,), at least 0.
    """
    losses = logits.new_zeros(len(logits))
    count = logits.new_zeros(())
    for first, second in _pairs(logits.shape[-2:]):
        distance = (colours[first] - colours[second]).norm(dim=0)
        alike = torch.exp(-distance / COLOUR_SCALE) >= SMALLEST_SIMILARITY
        counted = alike & ((inside[first] + inside[second]) > 0)
        p, q = logits[first], logits[second]
        both = F.logsigmoid(p) + F.logsigmoid(q)
        neither = F.logsigmoid(-p) + F.logsigmoid(-q)
        losses = losses - (torch.logaddexp(both, neither) * counted).sum(dim=(1, 2))
        count = count + counted.sum()
    return losses / count.clamp(min=1)


def _pairs(size: torch.Size) -> Iterator[tuple[tuple, tuple]]:
    """Yield index pairs of neighbours along the last two axes, each pair once."""
    height, width = size
    d = NEIGHBOUR_DISTANCE
    low_rows, high_rows, rows = slice(0, max(height - d, 0)), slice(d, None), slice(None)
    low_columns, high_columns = slice(0, max(width - d, 0)), slice(d, None)
    columns = slice(None)
    yield (..., rows, low_columns), (..., rows, high_columns)
    yield (..., low_rows, columns), (..., high_rows, columns)
    yield (..., low_rows, low_columns), (..., high_rows, high_columns)
    yield (..., low_rows, high_columns), (..., high_rows, low_columns)


def lab_colours(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink (B, H, W, 3) uint8 BGR images to (B, 3, h, w) float32 CIE Lab, L from 0 to 100.

    Args:
        images: images of the network's input size.
        size: (height, width) of the result; each pixel is the mean of the pixels it covers.
    """
    rgb = images.flip(-1).permute(0, 3, 1, 2).float() / 255
    rgb = F.adaptive_avg_pool2d(rgb, size)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = rgb.new_tensor(XYZ_OF_RGB) / rgb.new_tensor(WHITE_D65)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    cubic = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = cubic.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
