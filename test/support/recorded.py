"""Read what the authors' programs computed: `test/data`, which its README explains."""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data"


def description(case: str) -> dict[str, Any]:
    """Return how the weights of a case are drawn, and which picture it uses."""
    return json.loads((DATA / "parity" / f"{case}.json").read_text())


def arrays(case: str) -> dict[str, np.ndarray]:
    """Return the recorded arrays; each name ends in the steps by which it was subsampled."""
    with np.load(DATA / "parity" / f"{case}.npz") as file:
        return dict(file)


def picture(case: str) -> np.ndarray:
    """Return the picture of a case, (height, width, 3) uint8 BGR."""
    return cv2.imread(str(DATA / "parity" / description(case)["image"]))


@functools.cache
def official_shapes() -> dict[str, dict[str, list[int]]]:
    """Return the names and shapes of the state dict of each official configuration."""
    return json.loads(gzip.decompress((DATA / "official_entries.json.gz").read_bytes()))


def official_weights(case: str) -> dict[str, Any]:
    """Return the state dict that the authors' program loaded in a case."""
    from seeded_weights import seeded_weights

    facts = description(case)
    return seeded_weights(
        official_shapes()[facts["variant"]],
        seed=facts["seed"],
        scales=facts["scales"],
        num_classes=facts["num_classes"],
        priors_per_cell=facts["priors_per_cell"],
    )
