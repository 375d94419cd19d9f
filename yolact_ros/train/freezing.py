"""What of a network is not trained."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from yolact_ros.errors import ConfigError
from yolact_ros.model.weights.checkpoint import Transfer
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import TrainConfig

# Of fewer images a process, batch norm's statistics are too noisy to learn with (reference:
# `train.py`).
SMALLEST_NORMED_BATCH = 6

NAMED = 4  # entries that an error names


def frozen_norms(model: Yolact, config: TrainConfig, *, share: int) -> list[nn.Module]:
    """The batch norms that keep their statistics and weights, for `share` images a process."""
    frozen = config.freeze_batch_norm
    if frozen is None:
        frozen = share < SMALLEST_NORMED_BATCH
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)] if frozen else []


def freeze_parts(model: Yolact, config: TrainConfig) -> None:
    """Exclude parameters from training, as `frozen` and `trained` say.

    Raises:
        ConfigError: one of their names fits no parameter.
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
    """Whether the entry of that dotted name belongs to a part that is not trained."""
    if config.trained and not _belongs(name, config.trained):
        return True
    return _belongs(name, config.frozen)


def check_frozen_parts(transfer: Transfer, config: TrainConfig) -> None:
    """Make sure that what is not trained came from somewhere.

    Raises:
        ConfigError: entries that the checkpoint does not have would stay as they are made.
    """
    lacking = [n for n in (*transfer.fresh, *transfer.averaged) if is_frozen(n, config)]
    if lacking:
        shown = ", ".join(lacking[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
        raise ConfigError(
            f"{transfer.source} has nothing that fits {len(lacking)} entries of parts that are "
            f"not trained ({shown}): they would stay random. Train the checkpoint's own network, "
            "with its classes (variant: checkpoint), or let these parts learn (frozen, trained)."
        )


def _belongs(name: str, parts: Iterable[str]) -> bool:
    return any(name.startswith(part.rstrip(".") + ".") for part in parts)
