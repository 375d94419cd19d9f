"""Create the optimizer, the learning rate schedule and the EMA, and freeze parts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from yolact_ros.errors import ConfigError
from yolact_ros.model.weights.checkpoint import Transfer
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import OptimizerConfig, ScheduleConfig, TrainConfig

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
    """Return the learning rate of a step, counted from 0, in a run of `steps` steps."""
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


# With fewer images per process, batch norm statistics are too noisy (reference: `train.py`).
SMALLEST_NORMED_BATCH = 6

NAMED = 4  # entries in an error message


def frozen_norms(model: Yolact, config: TrainConfig, *, images: int) -> list[nn.Module]:
    """Return the batch norms that are frozen with this number of images per process."""
    frozen = config.freeze_batch_norm
    if frozen is None:
        frozen = images < SMALLEST_NORMED_BATCH
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)] if frozen else []


def check_norms(model: Yolact, source: str, *, frozen: bool) -> None:
    """Reject training of batch norms without statistics, such as those of a bundle.

    Raises:
        ConfigError: the statistics are missing, and the norms are not frozen.
    """
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    neutral = all(
        not bool(m.running_mean.any()) and bool((m.running_var == 1).all())  # type: ignore
        for m in norms
    )
    if norms and neutral and not frozen:
        raise ConfigError(
            f"{source} comes from a bundle, whose batch norms have no statistics to start from. "
            "Set freeze_batch_norm to true."
        )


def freeze_parts(model: Yolact, config: TrainConfig) -> None:
    """Exclude parameters from training according to `frozen` and `trained`.

    Raises:
        ConfigError: a name matches no parameter.
    """
    for setting in ("frozen", "trained"):
        for part in getattr(config, setting):
            if not any(_belongs(name, [part]) for name, _ in model.named_parameters()):
                raise ConfigError(
                    f"{setting} names {part!r}, but the network has no such part; its parts are: "
                    f"{', '.join(name for name, _ in model.named_children())}."
                )
    for name, parameter in model.named_parameters():
        if is_frozen(name, config):
            parameter.requires_grad_(False)


def is_frozen(name: str, config: TrainConfig) -> bool:
    """Return whether an entry belongs to a part that is not trained."""
    if config.trained and not _belongs(name, config.trained):
        return True
    return _belongs(name, config.frozen)


def check_frozen_parts(transfer: Transfer, config: TrainConfig) -> None:
    """Check that every part that is not trained was loaded.

    Raises:
        ConfigError: entries that the checkpoint lacks would keep their initial values.
    """
    lacking = [n for n in (*transfer.fresh, *transfer.averaged) if is_frozen(n, config)]
    if lacking:
        shown = ", ".join(lacking[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
        raise ConfigError(
            f"{transfer.source} lacks {len(lacking)} entries of parts that are not trained "
            f"({shown}): they would stay random. Train the network of the checkpoint with its "
            "classes (variant: checkpoint), or train these parts (frozen, trained)."
        )


def _belongs(name: str, parts: Iterable[str]) -> bool:
    return any(name.startswith(part.rstrip(".") + ".") for part in parts)
