"""Freeze parts of a network."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from yolact_ros.errors import ConfigError
from yolact_ros.model.weights.checkpoint import Transfer
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import TrainConfig

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
