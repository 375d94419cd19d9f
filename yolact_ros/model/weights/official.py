"""The authors' checkpoints: turned into ours with every entry accounted for, and recognised.

Every entry of a file is converted, or is a leftover with a reason; anything else is a problem that
is listed. Nothing is ever filled with random values.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from yolact_ros.config import ModelConfig
from yolact_ros.errors import WeightsError
from yolact_ros.model.weights.official_names import (
    depends_on_classes,
    reason_to_leave,
    rename,
    rules_of,
    strip_prefixes,
)
from yolact_ros.model.yolact import Yolact
from yolact_ros.variants import TABLETOP_MODEL, VARIANTS

OFFICIAL_VARIANTS = tuple(name for name in VARIANTS if name != TABLETOP_MODEL.name)
FRESH = "depends on the classes, starts fresh"


@dataclass(frozen=True)
class Conversion:
    """An official state dict in our names.

    Attributes:
        weights: our entry to its tensor.
        leftovers: official entry to the reason why nothing here needs it.
        counters: our entries `num_batches_tracked` that the file lacks and that are zero, as in a
            new network; evaluation never reads them.
        problems: what keeps `weights` from filling the network, one line for each entry.
    """

    weights: Mapping[str, Tensor]
    leftovers: Mapping[str, str]
    counters: Mapping[str, Tensor]
    problems: tuple[str, ...]


@functools.lru_cache(maxsize=64)
def entry_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every entry of a network, without memory for its weights."""
    with torch.device("meta"):
        network = Yolact(config)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def official_entries(content: Mapping[str, Any], *, source: str) -> dict[str, Tensor]:
    """Check that what a file holds is a bare state dict, as the authors save it.

    Raises:
        WeightsError: it holds something else, or values that are no numbers.
    """
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        found = ", ".join(map(str, others[:8])) or "nothing"
        raise WeightsError(
            f"{source} is no official checkpoint: expected only tensors under the names of a "
            f"network's entries, found {found}. A checkpoint of this package needs no conversion."
        )
    broken = [
        name
        for name, tensor in content.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if broken:
        raise WeightsError(
            f"{source} has values that are not finite in {len(broken)} entries: "
            f"{', '.join(broken[:8])}. The file is damaged, or its training diverged."
        )
    return dict(content)


def class_entries(config: ModelConfig) -> tuple[str, ...]:
    """Our entries of a network that hang on its classes."""
    return tuple(name for name in entry_shapes(config) if depends_on_classes(name))


def convert_official(
    entries: Mapping[str, Tensor], config: ModelConfig, *, fresh: Collection[str] = ()
) -> Conversion:
    """Rename the entries of an official state dict, and account for each.

    Args:
        entries: official name to tensor.
        config: the network that they should fill.
        fresh: our entries that are not to be taken from the file.

    Raises:
        WeightsError: no official checkpoint has the network's backbone.
    """
    renames, leftover_rules = rules_of(config.backbone)
    expected = entry_shapes(config)
    weights: dict[str, Tensor] = {}
    leftovers: dict[str, str] = {}
    problems: list[str] = []
    seen = set(fresh)
    for official, tensor in entries.items():
        name = strip_prefixes(official)
        reason = reason_to_leave(leftover_rules, name)
        ours = rename(renames, name)
        if reason is not None:
            leftovers[official] = reason
        elif ours is None or ours not in expected:
            problems.append(f"unknown: {official}")
        elif ours in fresh:
            leftovers[official] = FRESH
        elif ours in seen:
            problems.append(f"second of its name: {official}")
        elif tuple(tensor.shape) != expected[ours]:
            shape = tuple(tensor.shape)
            problems.append(f"shape of {official}: {shape}, expected {expected[ours]}")
        else:
            weights[ours] = tensor
        if ours is not None:
            seen.add(ours)
    missing = [ours for ours in expected if ours not in seen]
    # Files from before PyTorch 0.4.1 have no counters.
    counters = {
        ours: torch.zeros((), dtype=torch.int64)
        for ours in missing
        if ours.endswith(".num_batches_tracked")
    }
    problems += [f"missing: {ours} (our name)" for ours in missing if ours not in counters]
    return Conversion(weights, leftovers, counters, tuple(problems))


def recognise(
    entries: Mapping[str, Tensor], *, classes: tuple[str, ...] | None = None
) -> list[str]:
    """Name the official variants that the entries fit completely, by names and shapes alone.

    Several names come back where variants differ only in what no entry shows: input size, scales
    of the priors, or nothing but the name. YolactEdge's layout of the pyramid tells its files
    from YOLACT's.

    Args:
        entries: official name to tensor.
        classes: names of the classes if they are not the authors'.

    Raises:
        WeightsError: they fit none; the message lists what is wrong for the nearest.
    """
    conversions = {}
    for name in _variants_of_layout(entries):
        config = VARIANTS[name] if classes is None else replace(VARIANTS[name], classes=classes)
        conversions[name] = convert_official(entries, config)
    fitting = [name for name, conversion in conversions.items() if not conversion.problems]
    if not fitting:
        nearest = min(conversions, key=lambda name: len(conversions[name].problems))
        raise WeightsError(
            f"These {len(entries)} entries are no official network. The nearest is {nearest}, "
            f"with {describe_problems(conversions[nearest].problems)}"
        )
    return fitting


def _variants_of_layout(entries: Mapping[str, Tensor]) -> list[str]:
    edge = any(name.removeprefix("module.").startswith("fpn_phase_") for name in entries)
    names = [name for name in OFFICIAL_VARIANTS if name.startswith("yolact_edge") == edge]
    # YolactEdge's repository also has YOLACT on ResNet-152; its others are `yolact_edge*` again.
    return [*names, "yolact_resnet152"] if edge else names


def describe_problems(problems: Sequence[str], limit: int = 20) -> str:
    """How many problems there are, and the first `limit` of them, one a line."""
    shown = "\n  ".join(problems[:limit])
    more = f"\n  and {len(problems) - limit} more" if len(problems) > limit else ""
    return f"{len(problems)} entries that do not fit:\n  {shown}{more}"
