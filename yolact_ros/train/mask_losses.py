"""Compute the losses of masks, mask re-scoring and masks that have only a box."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from yolact_ros.model.yolact import Yolact
from yolact_ros.train.matching import Target

# The cross entropy of the reference clamps the logarithm here (as torch does).
SMALLEST_LOG = -100.0


class TrainedMasks:
    """Holds predicted masks of sampled positive priors of one image, and the true masks.

    A predicted mask is cropped to the true box of its instance, padded by one prototype pixel.
    Priors of the same instance share this region, and only this region is computed; outside, the
    prediction is zero.

    With `upsampling` above 1, masks are compared at a higher resolution: predictions are enlarged
    bilinearly after the sigmoid, as in inference. At the resolution of the prototypes, a pixel of
    the ground truth covers 4x4 input pixels, which is too coarse for thin objects: even perfect
    masks of hand tools at 416x320 have a mean IoU of only 0.82.

    Attributes:
        instances: indices of the instances that own a sampled prior, ascending.
        logits: for each of them, (n, h, w) mask values before the sigmoid inside its region.
        regions: for each of them, x1 y1 x2 y2 of the region in prototype pixels, half-open.
        truths: (N, Hp * upsampling, Wp * upsampling) float32, 0 or 1: all true masks.
    """

    def __init__(
        self,
        prototypes: Tensor,
        coefficients: Tensor,
        target: Target,
        *,
        owners: Tensor,
        upsampling: int = 1,
    ) -> None:
        """Assemble the masks.

        Args:
            prototypes: (Hp, Wp, K) prototypes of the image.
            coefficients: (n, K) coefficients of the sampled priors.
            target: target of the image.
            owners: (n,) int64, instance of each sampled prior.
            upsampling: pixels of the ground truth per prototype pixel along each axis.
        """
        height, width, _ = prototypes.shape
        self.size = (height, width)
        self.upsampling = upsampling
        self.target = target
        self.truths = resize_masks(target.masks, (height * upsampling, width * upsampling))
        self.instances = owners.unique().tolist()
        regions = crop_regions(target.boxes, self.size).tolist()
        self.regions = [regions[i] for i in self.instances]
        self.logits = []
        for i, (x1, y1, x2, y2) in zip(self.instances, self.regions, strict=True):
            pixels = prototypes[y1:y2, x1:x2].reshape(-1, prototypes.shape[2])
            values = coefficients[owners == i] @ pixels.T
            self.logits.append(values.view(-1, y2 - y1, x2 - x1))

    def loss(self, *, dice_weight: float = 0.0) -> Tensor:
        """Sum the binary cross entropy, divided by the area of the true box, and the dice loss.

        Args:
            dice_weight: weight of 1 - 2 |p t| / (|p|^2 + |t|^2) (Milletari et al. 2016), in which
                every object has the same weight, however little of its box it fills.
        """
        height, width = (side * self.upsampling for side in self.size)
        sizes = self.target.boxes[:, 2:] - self.target.boxes[:, :2]
        areas = sizes[:, 0] * width * sizes[:, 1] * height
        total = self.truths.new_zeros(())
        for i, region, logits in zip(self.instances, self.regions, self.logits, strict=True):
            x1, y1, x2, y2 = (side * self.upsampling for side in region)
            truth = self.truths[i, y1:y2, x1:x2]
            everywhere = truth.expand(len(logits), -1, -1)
            # The loss of the reference needs only the logits.
            soft = self.enlarge(logits.sigmoid()) if self.upsampling > 1 or dice_weight else None
            if soft is None or self.upsampling == 1:
                inside = F.binary_cross_entropy_with_logits(logits, everywhere, reduction="sum")
            else:
                inside = F.binary_cross_entropy(soft, everywhere, reduction="sum")
            # Outside, where a part of the true mask may lie, the prediction is exactly 0.
            outside = (self.truths[i].sum() - truth.sum()) * -SMALLEST_LOG * len(logits)
            total = total + (inside + outside) / areas[i]
            if soft is not None and dice_weight:
                total = total + dice_weight * dice_losses(soft, truth).sum()
        return total

    def enlarge(self, soft: Tensor) -> Tensor:
        """Upsample (n, h, w) masks after the sigmoid to (n, h * upsampling, w * upsampling)."""
        if self.upsampling == 1:
            return soft
        size = (soft.shape[1] * self.upsampling, soft.shape[2] * self.upsampling)
        return F.interpolate(soft[None], size, mode="bilinear", align_corners=False)[0]

    def full_masks(self, limit: int) -> tuple[Tensor, Tensor]:
        """Return soft masks on the whole prototype plane, and their instances.

        Args:
            limit: approximate maximum number of masks, spread evenly over the sampled ones.

        Returns:
            (n, Hp, Wp) float32, zero outside each region; (n,) int64.
        """
        height, width = self.size
        total = sum(len(logits) for logits in self.logits)
        every = -(-total // limit)
        masks, owners = [], []
        for i, (x1, y1, x2, y2), logits in zip(
            self.instances, self.regions, self.logits, strict=True
        ):
            soft = logits[::every].sigmoid()
            masks.append(F.pad(soft, (x1, width - x2, y1, height - y2)))
            owners += [i] * len(soft)
        return torch.cat(masks), torch.tensor(owners, device=self.truths.device)


def dice_losses(soft: Tensor, truth: Tensor) -> Tensor:
    """Compute (n,) dice losses in [0, 1] of (n, h, w) masks against one (h, w) truth."""
    shared = (soft * truth).sum(dim=(1, 2))
    sizes = soft.square().sum(dim=(1, 2)) + truth.sum()
    return 1 - (2 * shared + 1) / (sizes + 1)


def mask_iou_loss(masks: TrainedMasks, *, model: Yolact, limit: int, smallest_area: int) -> Tensor:
    """Sum the smooth L1 loss between predicted and true IoU of an image's masks (YOLACT++).

    As in the reference, the gradient also reaches prototypes and coefficients. If only some of the
    masks are used, the sum is scaled to all of them.
    """
    assert model.mask_rescoring is not None
    soft, owners = masks.full_masks(limit)
    scale = sum(len(logits) for logits in masks.logits) / len(soft)
    truths = masks.truths[owners]
    kept = truths.sum(dim=(1, 2)) > smallest_area * masks.upsampling**2
    if not bool(kept.any()):
        return soft.sum() * 0.0
    soft, truths, owners = soft[kept], truths[kept], owners[kept]
    with torch.no_grad():
        hard = (masks.enlarge(soft) > 0.5).float()
        shared = (hard * truths).sum(dim=(1, 2))
        union = hard.sum(dim=(1, 2)) + truths.sum(dim=(1, 2)) - shared
        expected = shared / union
    predicted = model.mask_rescoring(soft[:, None])
    predicted = predicted.gather(1, masks.target.class_ids[owners][:, None])[:, 0]
    return F.smooth_l1_loss(predicted, expected, reduction="sum") * scale


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, H, W) masks bilinearly and threshold them: (N, h, w) float32, 0 or 1."""
    if not len(masks):
        return torch.zeros((0, *size), device=masks.device)
    resized = F.interpolate(masks[None].float(), size, mode="bilinear", align_corners=False)
    return (resized[0] > 0.5).float()


def crop_regions(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute the regions that masks are cropped to: the box and one pixel around it.

    Args:
        boxes: (N, 4) x1 y1 x2 y2, fractions of the image.
        size: (height, width) of the masks.

    Returns:
        (N, 4) int64 x1 y1 x2 y2, half-open; as in the reference, a pixel c is kept if
        x1 - 1 <= c < x2 + 1.
    """
    height, width = size
    scale = boxes.new_tensor([width, height, width, height])
    pixels = boxes * scale
    low = (pixels[:, :2] - 1).clamp(min=0).ceil()
    high = torch.minimum((pixels[:, 2:] + 1).ceil(), scale[:2])
    return torch.cat([low, high], dim=1).long()


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
    """Sum the projection and pairwise losses of all masks (BoxInst, Tian et al. 2021, section 3).

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
