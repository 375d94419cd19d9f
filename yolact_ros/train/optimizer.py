"""Create the optimizer, the learning rate schedule and the EMA of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import OptimizerConfig, ScheduleConfig


def make_optimizer(model: Yolact, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Create the optimizer; `rate` of a parameter group is its fraction of the learning rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = config.backbone_rate if name.startswith("backbone.") else 1.0
        if rate == 0:
            parameter.requires_grad_(False)
        if not parameter.requires_grad:
            continue
        # SGD decays everything, as in the reference.
        exempt = config.name == "adamw" and parameter.ndim == 1
        decay = 0.0 if exempt else config.weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    parameters = [
        {"params": members, "rate": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(config.momentum, 0.999))


def learning_rate(step: int, *, steps: int, largest: float, config: ScheduleConfig) -> float:
    """Return the learning rate of a 0-based step in a run of `steps` steps."""
    if step < config.warm_up_steps:
        grown = step / config.warm_up_steps
        return largest * (config.warm_up_start + (1 - config.warm_up_start) * grown)
    if config.name == "cosine":
        return largest * 0.5 * (1 + math.cos(math.pi * step / steps))
    return largest * 0.1 ** sum(step >= drop for drop in config.drops)


class WeightAverage:
    """Maintains an exponential moving average of a network's weights in a second network.

    The decay grows with the steps, (1 + step) / (10 + step), up to `decay`, so that the average
    soon forgets the initial weights. This is not torch's `swa_utils.AveragedModel`, whose average
    is not adapted this way, ignores the first step, rounds integer buffers, and counts updates in
    a buffer that checkpoints would have to store.
    """

    def __init__(self, model: Yolact, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: Yolact, *, step: int) -> None:
        """Update the average with the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = self.model.state_dict(), model.state_dict()
        for name, mean in ours.items():
            if mean.is_floating_point():
                mean.lerp_(theirs[name], 1 - decay)
            else:
                mean.copy_(theirs[name])
