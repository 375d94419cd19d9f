"""Validate a run: losses and AP on the validation images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tqdm import tqdm

from yolact_ros.evaluate.training_ap import TrainingScore, detect, score
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import TrainConfig
from yolact_ros.train.distributed import DistributedContext
from yolact_ros.train.learner import BatchLosses
from yolact_ros.train.loader import ValidationSamples, validation_loader
from yolact_ros.train.metrics import MeanLosses

# Results of `training_ap.score`: AP over IoU 0.50:0.95 of boxes and masks, AP at 0.50 of masks.
AP_NAMES = ("box_ap", "mask_ap", "mask_ap50")

# Worse than any validation result.
WORST = (-1.0, float("-inf"))


@torch.no_grad()
def validate(
    model: Yolact,
    samples: ValidationSamples,
    *,
    config: TrainConfig,
    precision: torch.dtype,
    processes: DistributedContext,
) -> tuple[dict[str, float | None], TrainingScore | None]:
    """Validate a network in evaluation mode, with the images divided among the processes.

    Returns:
        In the first process, the mean losses, their `total` and, with `validation_ap`, the numbers
        named in `AP_NAMES`, empty if no image could be read; and the results that have AP.
        Undefined in the other processes.
    """
    part = (processes.rank, processes.count)
    loader = validation_loader(samples, batch_size=config.batch_size, part=part)
    here = DistributedContext(processes.device)  # each process has other batches, or none
    losses_of = BatchLosses(model, config, precision=precision, processes=here)
    means = MeanLosses()
    for batch in tqdm(
        loader, desc="validate", unit="batch", leave=False, disable=not processes.first
    ):
        if batch is None:  # none of its images can be read
            continue
        losses = losses_of(
            batch.images.to(processes.device),
            [target.to(processes.device) for target in batch.targets],
            motion=None if batch.motion is None else batch.motion.to(processes.device),
        )
        means.add({name: float(loss) for name, loss in losses.items()}, weight=len(batch.targets))
    for other in processes.gather(means)[1:]:
        means.merge(other)
    found_any = processes.first and not means.empty
    values: dict[str, float | None] = {**means.take()} if found_any else {}
    result = None
    if config.validation_ap:
        positions = samples.indices[part[0] :: part[1]]
        found = detect(model, samples.dataset, positions, show=processes.first)
        parts = processes.gather(found)
        if found_any:
            result = score(parts)
            values |= result.values
    return values, result


def quality(values: Mapping[str, float | None]) -> tuple[float, float]:
    """Return the criterion of `best.pth`: mask AP if known, then the loss; larger is better."""
    ap, total = values.get("mask_ap"), values["total"]
    assert total is not None
    return (WORST[0] if ap is None else ap, -total)


def summary_line(values: Mapping[str, float | None]) -> str:
    """Return one line of text with AP in percent."""
    text = f"validation loss {values['total']:.3f}"
    for title, name in (("mask AP", "mask_ap"), ("AP50", "mask_ap50"), ("box AP", "box_ap")):
        value = values.get(name)
        text += "" if value is None else f", {title} {100 * value:.2f}"
    return text
