"""Recognise and convert the authors' checkpoints, and account for every entry.

Every entry of a file is converted, or left out for a stated reason; anything else is listed as a
problem. No entry is ever filled with random values.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolact_ros.config import ModelConfig
from yolact_ros.errors import ConfigError, WeightsError
from yolact_ros.model.weights.official_names import (
    reason_to_leave,
    rename,
    rules_of,
    strip_prefixes,
)
from yolact_ros.model.yolact import Yolact
from yolact_ros.variants import TABLETOP_MODEL, VARIANTS, variant

OFFICIAL_VARIANTS = tuple(name for name in VARIANTS if name != TABLETOP_MODEL.name)


@dataclass(frozen=True)
class Conversion:
    """Holds an official state dict under our names.

    Attributes:
        weights: tensors by our entry names.
        leftovers: reason for leaving out each unneeded official entry, by its name.
        counters: entries `num_batches_tracked` that the file lacks, set to zero as in a new
            network; evaluation never reads them.
        problems: one line for each entry that keeps `weights` from filling the network.
    """

    weights: Mapping[str, Tensor]
    leftovers: Mapping[str, str]
    counters: Mapping[str, Tensor]
    problems: tuple[str, ...]


@functools.lru_cache(maxsize=64)
def entry_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every entry of a network by name, without allocating its weights."""
    with torch.device("meta"):
        network = Yolact(config)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def official_entries(content: Mapping[str, Any], *, source: str) -> dict[str, Tensor]:
    """Check that a file contains a bare state dict, as saved by the authors.

    Raises:
        WeightsError: it contains something else, or values that are not finite.
    """
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        found = ", ".join(map(str, others[:8])) or "nothing"
        raise WeightsError(
            f"{source} is not an official checkpoint: expected only tensors, named like "
            f"the entries of a network, but found {found}. A checkpoint of this package needs no "
            "conversion."
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


def convert_official(entries: Mapping[str, Tensor], config: ModelConfig) -> Conversion:
    """Rename the entries of an official state dict and account for each of them.

    Args:
        entries: tensors by official name.
        config: network that they should fill.

    Raises:
        WeightsError: no official checkpoint has this backbone.
    """
    renames, leftover_rules = rules_of(config.backbone)
    expected = entry_shapes(config)
    weights: dict[str, Tensor] = {}
    leftovers: dict[str, str] = {}
    problems: list[str] = []
    seen: set[str] = set()
    for official, tensor in entries.items():
        name = strip_prefixes(official)
        reason = reason_to_leave(leftover_rules, name)
        ours = rename(renames, name)
        if reason is not None:
            leftovers[official] = reason
        elif ours is None or ours not in expected:
            problems.append(f"unknown: {official}")
        elif ours in seen:
            problems.append(f"duplicate name: {official}")
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


def convert_whole(
    entries: Mapping[str, Tensor], config: ModelConfig, *, source: str
) -> Conversion:
    """Convert a state dict that fills a network completely.

    Raises:
        WeightsError: an entry has no counterpart here, is missing or has another shape.
    """
    conversion = convert_official(entries, config)
    if conversion.problems:
        raise WeightsError(
            f"{source} is not {config.name}; it has {describe_problems(conversion.problems)}"
        )
    return conversion


def recognise(
    entries: Mapping[str, Tensor], *, classes: tuple[str, ...] | None = None
) -> list[str]:
    """Return the names of the official variants whose entries match in name and shape.

    The result has several names if variants differ only in settings that no entry shows, such as
    the input size or the scales of the priors, or in nothing but the name. The layout of the
    pyramid distinguishes files of YolactEdge from those of YOLACT.

    Args:
        entries: official name to tensor.
        classes: class names, if they are not the authors'.

    Raises:
        WeightsError: no variant fits; the message lists the problems of the nearest one.
    """
    conversions = {}
    for name in _variants_of_layout(entries):
        config = VARIANTS[name] if classes is None else replace(VARIANTS[name], classes=classes)
        conversions[name] = convert_official(entries, config)
    fitting = [name for name, conversion in conversions.items() if not conversion.problems]
    if not fitting:
        nearest = min(conversions, key=lambda name: len(conversions[name].problems))
        raise WeightsError(
            f"These {len(entries)} entries do not form an official network. The nearest is "
            f"{nearest}, with {describe_problems(conversions[nearest].problems)}"
        )
    return fitting


def identify(
    entries: Mapping[str, Tensor],
    *,
    source: Path,
    name: str | None = None,
    classes: tuple[str, ...] | None = None,
) -> tuple[ModelConfig, list[str]]:
    """Find the network of an official file by its entries and, if they do not decide, its name.

    Args:
        entries: official name to tensor.
        source: the file; the authors' file names start with the name of the variant.
        name: the variant, if it is known.
        classes: names of the classes if they are not the authors'.

    Returns:
        The network, and other names under which it is known.

    Raises:
        WeightsError: the entries fit no network.
        ConfigError: they fit several networks, or no variant has that name.
    """
    if name is not None:
        names = named = [variant(name).name]
    else:
        try:
            names = recognise(entries, classes=classes)
        except WeightsError as error:
            raise WeightsError(
                f"{source}: {error}\nIf it was trained on other classes, name them: "
                f"yolact convert {source} --classes A,B,C -o CHECKPOINT"
            ) from error
        named = [n for n in names if re.match(rf"{n}(_\d|\.)", source.name)]
        names = named[:1] + [n for n in names if n not in named[:1]]
    networks = [replace(VARIANTS[n], classes=classes or VARIANTS[n].classes) for n in names]
    first = networks[0]
    same = [n.name for n in networks[1:] if replace(n, name=first.name) == first]
    if len(same) + 1 < len(networks) and not named:
        choices = ", ".join(
            f"{network.name} ({network.input_size[1]} x {network.input_size[0]} pixels)"
            for network in networks
        )
        raise ConfigError(
            f"{source} has the entries of several networks: {choices}. Give the file its "
            "original name, or specify the network: "
            f"yolact convert {source} --variant NAME -o CHECKPOINT"
        )
    return first, same


def _variants_of_layout(entries: Mapping[str, Tensor]) -> list[str]:
    edge = any(name.removeprefix("module.").startswith("fpn_phase_") for name in entries)
    names = [name for name in OFFICIAL_VARIANTS if name.startswith("yolact_edge") == edge]
    # YolactEdge's repository also has YOLACT on ResNet-152, under its old name.
    return [*names, "yolact_resnet152"] if edge else names


def describe_problems(problems: Sequence[str], limit: int = 20) -> str:
    """Return the number of problems, and the first `limit` of them, one per line."""
    shown = "\n  ".join(problems[:limit])
    more = f"\n  and {len(problems) - limit} more" if len(problems) > limit else ""
    return f"{len(problems)} entries that do not fit:\n  {shown}{more}"
