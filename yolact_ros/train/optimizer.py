"""Create the optimizer, the learning rate schedule and the EMA of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import OptimizerConfig, ScheduleConfig

Tensors = tuple[Tensor, ...] | list[Tensor]


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


def average_weights(model: Yolact, decay: float) -> AveragedModel:
    """Create an exponential moving average of a network's weights and buffers.

    The decay of the nth update is (1 + n) / (10 + n), but at most `decay`, so that the average
    soon forgets the initial weights. To resume after n updates, set `n_averaged` to n + 1.

    Returns:
        The average, whose `module` is a copy of the network in evaluation mode; call
        `update_parameters(model)` after each step.
    """

    def update(means: Tensors, weights: Tensors, count: Tensor | int) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(means, weights, count)

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    average.eval().requires_grad_(False)
    average.n_averaged += 1  # at 0, the first update would copy the weights
    return average
