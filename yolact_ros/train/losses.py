"""Compute the five losses of YOLACT and YOLACT++ (dbolya/yolact `multibox_loss.py`).

A sixth loss, which the reference does not have, learns masks from boxes; see `box_mask_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from yolact_ros.config import Checked, setting
from yolact_ros.model.yolact import Yolact, YolactOutput
from yolact_ros.train.mask_losses import (
    TrainedMasks,
    box_mask_loss,
    lab_colours,
    mask_iou_loss,
    resize_masks,
)
from yolact_ros.train.matching import Matches, Target, encode_offsets, match_priors

LOSS_NAMES = ("box", "class", "mask", "semantic", "mask_iou", "box_mask")


@dataclass(frozen=True)
class LossConfig(Checked):
    """Configures the weights and limits of the losses; the defaults are the reference's.

    Attributes:
        box_weight: Weight of the box loss.
        class_weight: Weight of the class loss.
        mask_weight: Weight of the mask loss.
        semantic_weight: Weight of the semantic loss.
        mask_iou_weight: Weight of the mask re-scoring loss.
        negatives_per_positive: Background priors per positive prior in the class loss.
        min_negatives: Minimum number of background priors per image in the class loss; above 0,
            the network also learns from images without objects (0 = off, as in the reference).
        masks_to_train: Maximum number of positive priors per image in the mask loss, chosen at
            random.
        rescored_masks: Maximum number of positive priors per image in the mask re-scoring loss,
            out of those in the mask loss; the cost grows with it.
        smallest_rescored_area: Area in prototype pixels up to which masks do not train re-scoring.
        mask_upsampling: Factor by which masks are upsampled before the comparison with the ground
            truth: 1 as in the reference, 4 for the input size, which thin objects require.
        dice_weight: Weight of the dice loss within the mask loss; mask_weight multiplies both (0 =
            off).
        box_mask_weight: Weight of the box-supervised mask loss for instances without a mask, which
            requires training.learn_boxes (0 = off).
    """

    box_weight: float = setting(1.5, range=(0.0, 1e3))
    class_weight: float = setting(1.0, range=(0.0, 1e3))
    mask_weight: float = setting(6.125, range=(0.0, 1e3))
    semantic_weight: float = setting(1.0, range=(0.0, 1e3))
    mask_iou_weight: float = setting(25.0, range=(0.0, 1e3))
    negatives_per_positive: int = setting(3, range=(1, 1000))
    min_negatives: int = setting(0, range=(0, 1000))
    masks_to_train: int = setting(100, range=(1, 1000))
    rescored_masks: int = setting(100, range=(1, 1000))
    smallest_rescored_area: int = setting(25, range=(0, 100000))
    mask_upsampling: int = setting(1, range=(1, 4))
    dice_weight: float = setting(0.0, range=(0.0, 1e3))
    box_mask_weight: float = setting(0.0, range=(0.0, 1e3))


def at_least_one(count: int) -> float:
    """Return the divisor of sums over the positive priors of a batch."""
    return max(count, 1)


def yolact_losses(
    output: YolactOutput,
    targets: Sequence[Target],
    *,
    model: Yolact,
    config: LossConfig,
    seeds: Sequence[int] | None = None,
    normaliser: Callable[[int], float] = at_least_one,
    images: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute the weighted losses of a batch; training minimises their sum.

    Each loss is divided by the number of positive priors of the batch that contribute to it, the
    semantic loss by the number of images. Without instances, all losses but the semantic one are
    zero. Every output of the network always takes part, if only with a factor of zero.

    Args:
        output: output of the network for B images, any floating-point type.
        targets: B targets on the same device.
        model: network with the priors and the mask re-scoring.
        config: weights and limits.
        seeds: B seeds, one per image for sampling masks, so that sampling is independent of the
            rest of the batch; defaults to the image indices.
        normaliser: returns the divisor of the losses for a number of positive priors; for batches
            that are parts of a larger one.
        images: (B, H, W, 3) uint8 BGR on the same device; only for `box_mask_weight`.

    Returns:
        Scalar float32 losses by name (of `LOSS_NAMES`; `mask_iou` only with re-scoring, `box_mask`
        only with `box_mask_weight`).
    """
    output = YolactOutput(*(tensor.float() for tensor in output))
    matches = [
        match_priors(model.priors, t.boxes, class_ids=t.class_ids, crowd_boxes=t.crowd_boxes)
        for t in targets
    ]
    labels = torch.stack([match.labels for match in matches])
    num_positive = normaliser(int((labels > 0).sum()))
    without_mask = [priors_without_mask(m, t) for m, t in zip(matches, targets, strict=True)]
    masked = [
        torch.nonzero((match.labels > 0) & ~excluded)[:, 0]
        for match, excluded in zip(matches, without_mask, strict=True)
    ]
    num_masked = normaliser(sum(len(priors) for priors in masked))
    losses = {
        "box": config.box_weight
        * box_loss(output.box_offsets, targets, matches=matches, priors=model.priors)
        / num_positive,
        "class": config.class_weight
        * class_loss(
            output.class_logits,
            labels,
            negatives_per_positive=config.negatives_per_positive,
            min_negatives=config.min_negatives,
        )
        / num_positive,
    }
    sample = partial(sampled_masks, output, targets, matches, limit=config.masks_to_train)
    masks_sum = iou_sum = zero = (output.prototypes.sum() + output.coefficients.sum()) * 0.0
    for _, masks, weight in sample(masked, seeds=seeds, upsampling=config.mask_upsampling):
        masks_sum = masks_sum + masks.loss(dice_weight=config.dice_weight) * weight
        if model.mask_rescoring is not None:
            iou_sum = iou_sum + mask_iou_loss(
                masks,
                model=model,
                limit=config.rescored_masks,
                smallest_area=config.smallest_rescored_area,
            )
    losses["mask"] = config.mask_weight * masks_sum / num_masked
    losses["semantic"] = (
        config.semantic_weight * semantic_loss(output.semantic_logits, targets) / len(targets)
    )
    if model.mask_rescoring is not None:
        losses["mask_iou"] = config.mask_iou_weight * iou_sum / num_masked
    if config.box_mask_weight:
        assert images is not None
        priors = [torch.nonzero(some)[:, 0] for some in without_mask]
        colours = lab_colours(images, (output.prototypes.shape[1], output.prototypes.shape[2]))
        total = zero
        for i, masks, weight in sample(priors, seeds=seeds):
            total = total + box_mask_loss(masks, colours[i]) * weight
        num_boxes = normaliser(sum(len(some) for some in priors))
        losses["box_mask"] = config.box_mask_weight * total / num_boxes
    return losses


def priors_without_mask(match: Matches, target: Target) -> Tensor:
    """Return (P,) bool, which positive priors have an instance with a box but no mask."""
    if not len(target.box_only):
        return torch.zeros_like(match.labels, dtype=torch.bool)
    return (match.labels > 0) & target.box_only[match.instances]


def sampled_masks(
    output: YolactOutput,
    targets: Sequence[Target],
    matches: Sequence[Matches],
    priors: Sequence[Tensor],
    *,
    limit: int,
    seeds: Sequence[int] | None,
    upsampling: int = 1,
) -> Iterator[tuple[int, TrainedMasks, float]]:
    """Yield the index of each image with positive priors, the masks of some, and their weight.

    Args:
        output: float32 output of the network for B images.
        targets: targets of the B images.
        matches: matches of the B images.
        priors: B lists (n,) of positive priors.
        limit: maximum number of sampled priors per image; the weight makes up for the others.
        seeds: B seeds, see `yolact_losses`.
        upsampling: see `TrainedMasks`.
    """
    drawn = [
        sample_priors(some, limit=limit, seed=seed)
        for some, seed in zip(priors, seeds or range(len(priors)), strict=True)
    ]
    # One gather for all images: indexing image by image would allocate a whole gradient each time.
    counts = [len(some) for some in drawn]
    numbers = torch.arange(len(drawn)).repeat_interleave(torch.tensor(counts))
    chosen = output.coefficients[numbers.to(output.coefficients.device), torch.cat(drawn)]
    images = zip(output.prototypes.unbind(), chosen.split(counts), strict=True)
    for i, (prototypes, coefficients) in enumerate(images):
        if counts[i]:
            owners = matches[i].instances[drawn[i]]
            masks = TrainedMasks(
                prototypes,
                coefficients,
                targets[i],
                owners=owners,
                upsampling=upsampling,
            )
            yield i, masks, len(priors[i]) / counts[i]


def box_loss(
    box_offsets: Tensor, targets: Sequence[Target], *, matches: Sequence[Matches], priors: Tensor
) -> Tensor:
    """Sum the smooth L1 loss between predicted and true offsets over the positive priors.

    Args:
        box_offsets: (B, P, 4).
        targets: targets of the B images.
        matches: matches of the B images.
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


def class_loss(
    class_logits: Tensor, labels: Tensor, *, negatives_per_positive: int, min_negatives: int = 0
) -> Tensor:
    """Sum cross entropy over positives and the hardest negatives of each image (OHEM).

    An image learns `negatives_per_positive` times as many background priors as it has positive
    ones, and at least `min_negatives`: those whose background probability is lowest.

    Args:
        class_logits: (B, P, C + 1), background first.
        labels: (B, P) int64: class id + 1, 0 for background, -1 for ignored.
        negatives_per_positive: see above.
        min_negatives: as above; 0 leaves images without objects out, as the reference does.
    """
    with torch.no_grad():
        hardness = torch.logsumexp(class_logits, dim=2) - class_logits[..., 0]
        hardness[labels != 0] = -1.0  # below that of any background prior
        learnt = labels > 0
        limits = (negatives_per_positive * learnt.sum(dim=1)).clamp(min=min_negatives)
        for i, limit in enumerate(limits.tolist()):
            limit = min(limit, int((labels[i] == 0).sum()))
            learnt[i, hardness[i].topk(limit).indices] = True
    return F.cross_entropy(class_logits[learnt], labels[learnt], reduction="sum")


def sample_priors(priors: Tensor, *, limit: int, seed: int) -> Tensor:
    """Sample at most `limit` of (n,) indices of priors at random."""
    if len(priors) > limit:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(priors), generator=generator)[:limit]
        priors = priors[drawn.to(priors.device)]
    return priors


def semantic_loss(semantic_logits: Tensor, targets: Sequence[Target]) -> Tensor:
    """Sum the pixel-averaged binary cross entropy over images and classes.

    A class is true at a pixel that any mask of its instances covers. Inside the box of an instance
    without a mask it is unknown and ignored, unless the mask of another instance covers the pixel.

    Args:
        semantic_logits: (B, C, h, w).
        targets: targets of the B images.
    """
    size = (semantic_logits.shape[2], semantic_logits.shape[3])
    truths = torch.zeros_like(semantic_logits)
    unknown = torch.zeros_like(semantic_logits)
    for truth, boxes, target in zip(truths, unknown, targets, strict=True):
        masks = resize_masks(target.masks, size)
        for class_id, box_only, mask in zip(
            target.class_ids.tolist(), target.box_only.tolist(), masks, strict=True
        ):
            plane = (boxes if box_only else truth)[class_id]
            torch.maximum(plane, mask, out=plane)
    weights = torch.maximum(truths, 1 - unknown)
    total = F.binary_cross_entropy_with_logits(semantic_logits, truths, weights, reduction="sum")
    return total / (size[0] * size[1])
