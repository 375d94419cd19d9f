"""Damage files at random, from a seed, for the tests in `test/attack`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 7, 2**31, 10**20, -(10**9), 0.5, -1.5, 1e300, 1e-300,
    float("inf"), float("nan"), "", "x", "7", "ü" * 300, "../x", "\0", [], [[]], [1, 2], {},
    {"a": 1}, [None], ["x", "y"], {"a": {"b": []}},
]  # fmt: skip


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Return every position in nested lists and mappings, except the outermost."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    found = []
    for key, inner in items:
        found += [(*path, key), *places(inner, (*path, key))]
    return found


def mutate_json(value: Any, random: np.random.Generator, *, changes: int = 2) -> Any:
    """Copy nested plain values with some of them replaced, removed, doubled or exchanged."""
    value = copy.deepcopy(value)
    for _ in range(int(random.integers(1, changes + 1))):
        found = places(value)
        if not found:
            break
        *path, key = found[int(random.integers(len(found)))]
        holder = value
        for step in path:
            holder = holder[step]
        kind = int(random.integers(6))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind == 2 and isinstance(holder, dict):
            holder[["", "x", "0", "format"][int(random.integers(4))]] = holder.pop(key)
        elif kind == 3 and isinstance(holder[key], (int, float)):
            factor = [-1, 0, 2, 10, 1e6, 0.5][int(random.integers(6))]
            holder[key] = (
                type(holder[key])(holder[key] * factor) if abs(holder[key]) < 1e300 else 0
            )
        else:
            holder[key] = copy.deepcopy(VALUES[int(random.integers(len(VALUES)))])
    return value


def mutate_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Copy bytes with some flipped, zeroed, removed or inserted, or with the end cut off."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(max(len(data), 1)))
        length = int(random.integers(1, 30))
        kind = int(random.integers(5))
        if kind == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[place : place + length] = bytes(len(data[place : place + length]))
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = random.bytes(length)
        else:
            del data[place:]
    return bytes(data)
