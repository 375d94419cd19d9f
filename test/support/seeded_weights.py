"""Create checkpoints in the authors' layout with seeded values, for the recorded parity cases.

The authors' programs ran once with these weights, and `test/data/parity` holds what they computed.
Each entry has its own generator, seeded with its name, so the order of entries has no effect; a
scale for each entry keeps the activations near unit variance.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import torch


def seeded_weights(
    shapes: Mapping[str, Sequence[int]],
    *,
    seed: int,
    scales: Mapping[str, float],
    num_classes: int,
    priors_per_cell: int,
) -> dict[str, torch.Tensor]:
    """Draw a value for every entry.

    Args:
        shapes: Shape of each entry of the official state dict.
        seed: Seed of the case.
        scales: Factors of the entries whose factor is not 1.
        num_classes: Number of classes, background included.
        priors_per_cell: Number of priors at each cell of a level.
    """
    entries = {}
    for name, shape in shapes.items():
        generator = torch.Generator()
        generator.manual_seed((seed * 1_000_003 + zlib.crc32(name.encode())) % (2**63 - 1))
        layer, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            entries[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        if kind == "running_var":
            value = 0.6 + 0.8 * torch.rand(shape, generator=generator)
        elif kind == "running_mean":
            value = 0.1 * torch.randn(shape, generator=generator)
        elif f"{layer}.running_var" in shapes and kind == "weight":
            value = 0.8 + 0.4 * torch.rand(shape, generator=generator)
        elif f"{layer}.running_var" in shapes:
            value = 0.1 * torch.randn(shape, generator=generator)
        elif len(shape) == 4:
            deviation = math.sqrt(2 / math.prod(shape[1:]))
            value = deviation * torch.randn(shape, generator=generator)
        else:
            value = 0.05 * torch.randn(shape, generator=generator)
            if "conf_layer" in name:  # Favour the background, as a trained network does.
                value.view(priors_per_cell, num_classes)[:, 0] += 9
            if layer.startswith("flow_net.pred") and name.endswith(".scale.bias"):
                value += 1
        entries[name] = value * scales.get(name, 1.0)
    return entries
