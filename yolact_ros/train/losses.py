"""The five losses of YOLACT and YOLACT++ (dbolya/yolact `layers/modules/multibox_loss.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from yolact_ros.config import check_settings, setting
from yolact_ros.model.yolact import Yolact, YolactOutput
from yolact_ros.train.matching import Matches, encode_offsets, match_priors

LOSS_NAMES = ("box", "class", "mask", "semantic", "mask_iou")

# The reference clamps the logarithm in its cross entropy there (as torch does).
SMALLEST_LOG = -100.0


@dataclass(frozen=True)
class LossConfig:
    """Weights and limits of the losses; the defaults are the reference's."""

    box_weight: float = setting(1.5, "weight of the box loss", range=(0.0, 1e3))
    class_weight: float = setting(1.0, "weight of the class loss", range=(0.0, 1e3))
    mask_weight: float = setting(6.125, "weight of the mask loss", range=(0.0, 1e3))
    semantic_weight: float = setting(1.0, "weight of the semantic loss", range=(0.0, 1e3))
    mask_iou_weight: float = setting(25.0, "weight of the mask re-scoring loss", range=(0.0, 1e3))
    negatives_per_positive: int = setting(
        3, "background priors that are learnt for each positive one", range=(1, 1000)
    )
    masks_to_train: int = setting(
        100,
        "positive priors of an image, drawn at random, whose masks are learnt",
        range=(1, 1000),
    )
    rescored_masks: int = setting(
        100,
        "of those, how many also teach the mask re-scoring (its cost grows with them)",
        range=(1, 1000),
    )
    smallest_rescored_area: int = setting(
        25, "masks of this many prototype pixels or fewer teach no re-scoring", range=(0, 100000)
    )
    mask_upsampling: int = setting(
        1,
        "1 compares masks with the truth at the prototypes' size, as the reference; 2 or 4 first "
        "makes them so much larger, which thin objects need (4 is the size of the input)",
        range=(1, 4),
    )
    dice_weight: float = setting(
        0.0, "weight of the dice loss, which mask_weight multiplies as well", range=(0.0, 1e3)
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Target:
    """What is to be found in one image; N and M may be 0.

    Attributes:
        boxes: (N, 4) float32 x1 y1 x2 y2, fractions of the image.
        class_ids: (N,) int64, 0-based.
        masks: (N, H, W) uint8, 0 or 1, at the network's input size.
        crowd_boxes: (M, 4) float32, fractions: regions that count as neither object nor
            background.
    """

    boxes: Tensor
    class_ids: Tensor
    masks: Tensor
    crowd_boxes: Tensor

    def to(self, device: torch.device) -> Target:
        """The same target on another device."""
        return Target(
            boxes=self.boxes.to(device),
            class_ids=self.class_ids.to(device),
            masks=self.masks.to(device),
            crowd_boxes=self.crowd_boxes.to(device),
        )


def at_least_one(count: int) -> float:
    """What the sums over the positive priors of a whole batch are divided by."""
    return max(count, 1)


def yolact_losses(
    output: YolactOutput,
    targets: Sequence[Target],
    *,
    model: Yolact,
    config: LossConfig,
    seeds: Sequence[int] | None = None,
    normaliser: Callable[[int], float] = at_least_one,
) -> dict[str, Tensor]:
    """Compute the weighted losses of a batch; training minimises their sum.

    All are divided by the number of positive priors of the batch, but the semantic loss by the
    number of images. A batch without instances gives zeros, except for the semantic loss.
    Whatever the batch, every output of the network takes part, if only with a zero.

    Args:
        output: of the network for B images, any floating type.
        targets: B targets on the same device.
        model: gives the priors and the mask re-scoring.
        config: weights and limits.
        seeds: B of them; each draws the masks of an image to train where there are more than
            allowed, so that the draw does not hang on the other images. Their numbers by default.
        normaliser: makes of the number of positive priors what the losses are divided by; for
            batches that are parts of a larger one.

    Returns:
        Name (of `LOSS_NAMES`; `mask_iou` only with re-scoring) to a scalar float32.
    """
    output = YolactOutput(*(tensor.float() for tensor in output))
    matches = [
        match_priors(model.priors, t.boxes, class_ids=t.class_ids, crowd_boxes=t.crowd_boxes)
        for t in targets
    ]
    labels = torch.stack([match.labels for match in matches])
    num_positive = normaliser(int((labels > 0).sum()))
    losses = {
        "box": config.box_weight
        * box_loss(output.box_offsets, targets, matches=matches, priors=model.priors)
        / num_positive,
        "class": config.class_weight
        * class_loss(
            output.class_logits, labels, negatives_per_positive=config.negatives_per_positive
        )
        / num_positive,
    }
    drawn = [
        draw_positives(match, limit=config.masks_to_train, seed=seed)
        for match, seed in zip(matches, seeds or range(len(matches)), strict=True)
    ]
    # One gather for all images: indexing image by image would fill a whole gradient each time.
    counts = [len(priors) for priors in drawn]
    images = torch.arange(len(drawn)).repeat_interleave(torch.tensor(counts))
    coefficients = output.coefficients[images.to(labels.device), torch.cat(drawn)].split(counts)
    masks_sum = iou_sum = (output.prototypes.sum() + output.coefficients.sum()) * 0.0
    for i, prototypes in enumerate(output.prototypes.unbind()):
        if not counts[i]:
            continue
        owners = matches[i].instances[drawn[i]]
        masks = TrainedMasks(
            prototypes,
            coefficients[i],
            targets[i],
            owners=owners,
            upsampling=config.mask_upsampling,
        )
        loss = masks.loss(dice_weight=config.dice_weight)
        masks_sum = masks_sum + loss * (int((labels[i] > 0).sum()) / counts[i])
        if model.mask_rescoring is not None:
            iou_sum = iou_sum + mask_iou_loss(
                masks,
                model=model,
                limit=config.rescored_masks,
                smallest_area=config.smallest_rescored_area,
            )
    losses["mask"] = config.mask_weight * masks_sum / num_positive
    losses["semantic"] = (
        config.semantic_weight * semantic_loss(output.semantic_logits, targets) / len(targets)
    )
    if model.mask_rescoring is not None:
        losses["mask_iou"] = config.mask_iou_weight * iou_sum / num_positive
    return losses


def box_loss(
    box_offsets: Tensor, targets: Sequence[Target], *, matches: Sequence[Matches], priors: Tensor
) -> Tensor:
    """Sum of smooth L1 between predicted and true offsets over the positive priors.

    Args:
        box_offsets: (B, P, 4).
        targets: of the B images.
        matches: of the B images.
        priors: (P, 4) centre form.
    """
    total = box_offsets.sum() * 0.0
    for offsets, target, match in zip(box_offsets, targets, matches, strict=True):
        positive = match.labels > 0
        if bool(positive.any()):
            boxes = target.boxes[match.instances[positive]]
            expected = encode_offsets(boxes, priors[positive])
            total = total + F.smooth_l1_loss(offsets[positive], expected, reduction="sum")
    return total


def class_loss(class_logits: Tensor, labels: Tensor, *, negatives_per_positive: int) -> Tensor:
    """Sum of cross entropy over positives and the hardest negatives of each image (OHEM).

    An image learns `negatives_per_positive` times as many background priors as it has positive
    ones: those whose background probability is lowest.

    Args:
        class_logits: (B, P, C + 1), background first.
        labels: (B, P) int64: class id + 1, 0 background, -1 left out.
        negatives_per_positive: as above.
    """
    with torch.no_grad():
        hardness = torch.logsumexp(class_logits, dim=2) - class_logits[..., 0]
        hardness[labels != 0] = -1.0  # below any background prior's
        learnt = labels > 0
        limits = negatives_per_positive * learnt.sum(dim=1)
        for i, limit in enumerate(limits.tolist()):
            limit = min(limit, int((labels[i] == 0).sum()))
            learnt[i, hardness[i].topk(limit).indices] = True
    return F.cross_entropy(class_logits[learnt], labels[learnt], reduction="sum")


def draw_positives(match: Matches, *, limit: int, seed: int) -> Tensor:
    """Indices (n,) of positive priors, at most `limit` of them, drawn at random."""
    positive = torch.nonzero(match.labels > 0)[:, 0]
    if len(positive) > limit:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(positive), generator=generator)[:limit]
        positive = positive[drawn.to(positive.device)]
    return positive


class TrainedMasks:
    """Predicted masks of drawn positive priors of one image, next to the true ones.

    A predicted mask is cropped to its instance's true box, padded by one prototype pixel, so
    priors of the same instance share a region; only that region is computed. Outside of it the
    prediction is zero.

    With `upsampling` above 1 both are compared on a finer plane: the predictions after the
    sigmoid are enlarged bilinearly, as where they are used. At the prototypes' size itself the
    truth is drawn with pixels of 4x4 input pixels, from which no thin object can be learnt well:
    hand tools seen at 416x320 come back with a mean IoU of 0.82 even from perfect masks.

    Attributes:
        instances: those that own a drawn prior, ascending.
        logits: for each, (n, h, w) mask values before the sigmoid inside its region.
        regions: for each, x1 y1 x2 y2 of the region in prototype pixels, half-open.
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
            prototypes: (Hp, Wp, K) of the image.
            coefficients: (n, K) of its drawn priors.
            target: of the image.
            owners: (n,) int64, the instance of each drawn prior.
            upsampling: pixels of the truth to a prototype pixel, along each axis.
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
        """Sum over the masks of binary cross entropy, divided by the true box's area, and dice.

        Args:
            dice_weight: of 1 - 2 |p t| / (|p|^2 + |t|^2) (Milletari et al. 2016), to which every
                object counts as one, however few of its box's pixels are its own.
        """
        height, width = (side * self.upsampling for side in self.size)
        sizes = self.target.boxes[:, 2:] - self.target.boxes[:, :2]
        areas = sizes[:, 0] * width * sizes[:, 1] * height
        total = self.truths.new_zeros(())
        for i, region, logits in zip(self.instances, self.regions, self.logits, strict=True):
            x1, y1, x2, y2 = (side * self.upsampling for side in region)
            truth = self.truths[i, y1:y2, x1:x2]
            everywhere = truth.expand(len(logits), -1, -1)
            if self.upsampling == 1:
                inside = F.binary_cross_entropy_with_logits(logits, everywhere, reduction="sum")
            else:
                soft = self.enlarge(logits.sigmoid())
                inside = F.binary_cross_entropy(soft, everywhere, reduction="sum")
            # The prediction is exactly 0 outside, where a part of the true mask may lie.
            outside = (self.truths[i].sum() - truth.sum()) * -SMALLEST_LOG * len(logits)
            total = total + (inside + outside) / areas[i]
            if dice_weight:
                soft = self.enlarge(logits.sigmoid())
                total = total + dice_weight * dice_losses(soft, truth).sum()
        return total

    def enlarge(self, soft: Tensor) -> Tensor:
        """(n, h, w) masks after the sigmoid to (n, h * upsampling, w * upsampling)."""
        if self.upsampling == 1:
            return soft
        size = (soft.shape[1] * self.upsampling, soft.shape[2] * self.upsampling)
        return F.interpolate(soft[None], size, mode="bilinear", align_corners=False)[0]

    def full_masks(self, limit: int) -> tuple[Tensor, Tensor]:
        """Soft masks on the whole prototype plane, and their instances.

        Args:
            limit: at most about so many masks, spread evenly over the drawn ones.

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
    """(n,) dice losses, from 0 to 1, of (n, h, w) masks against one (h, w) truth."""
    shared = (soft * truth).sum(dim=(1, 2))
    sizes = soft.square().sum(dim=(1, 2)) + truth.sum()
    return 1 - (2 * shared + 1) / (sizes + 1)


def mask_iou_loss(masks: TrainedMasks, *, model: Yolact, limit: int, smallest_area: int) -> Tensor:
    """Sum of smooth L1 between predicted and true IoU of one image's masks (YOLACT++).

    As in the reference the gradient also reaches prototypes and coefficients. Where only some of
    the masks are taken, the sum is scaled to all of them.
    """
    assert model.mask_rescoring is not None
    soft, owners = masks.full_masks(limit)
    share = sum(len(logits) for logits in masks.logits) / len(soft)
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
    return F.smooth_l1_loss(predicted, expected, reduction="sum") * share


def semantic_loss(semantic_logits: Tensor, targets: Sequence[Target]) -> Tensor:
    """Sum over images of the mean over pixels of binary cross entropy, added up over classes.

    A class is true at a pixel where the mask of any of its instances is.

    Args:
        semantic_logits: (B, C, h, w).
        targets: of the B images.
    """
    size = (semantic_logits.shape[2], semantic_logits.shape[3])
    truths = torch.zeros_like(semantic_logits)
    for truth, target in zip(truths, targets, strict=True):
        masks = resize_masks(target.masks, size)
        for class_id, mask in zip(target.class_ids.tolist(), masks, strict=True):
            truth[class_id] = torch.maximum(truth[class_id], mask)
    total = F.binary_cross_entropy_with_logits(semantic_logits, truths, reduction="sum")
    return total / (size[0] * size[1])


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring (N, H, W) masks to (N, h, w) float32 of 0 and 1: bilinear, then above one half."""
    if not len(masks):
        return torch.zeros((0, *size), device=masks.device)
    resized = F.interpolate(masks[None].float(), size, mode="bilinear", align_corners=False)
    return (resized[0] > 0.5).float()


def crop_regions(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Columns and rows that masks are cropped to: the box and one pixel around it.

    Args:
        boxes: (N, 4) x1 y1 x2 y2, fractions of the image.
        size: (height, width) of the masks.

    Returns:
        (N, 4) int64 x1 y1 x2 y2, half-open; as the reference, a pixel c stays when
        x1 - 1 <= c < x2 + 1.
    """
    height, width = size
    scale = boxes.new_tensor([width, height, width, height])
    pixels = boxes * scale
    low = (pixels[:, :2] - 1).clamp(min=0).ceil()
    high = torch.minimum((pixels[:, 2:] + 1).ceil(), scale[:2])
    return torch.cat([low, high], dim=1).long()
