"""Provide the reference's recorded arrays, and our networks with the same weights and images."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import recorded

torch = pytest.importorskip("torch")


@dataclass(frozen=True)
class Parity:
    """Holds one recorded case.

    `golden` holds the reference's arrays, `entries` the official state dict, `image` the source
    (h, w, 3) uint8 BGR.
    """

    golden: dict[str, np.ndarray]
    entries: dict[str, Any]
    network: Any
    image: np.ndarray

    def resize(self, image: np.ndarray) -> Any:
        """Resize bilinearly in torch like the reference's `--image` path: float (1, H, W, 3)."""
        tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
        tensor = torch.nn.functional.interpolate(
            tensor, self.network.config.input_size, mode="bilinear", align_corners=False
        )
        return tensor.permute(0, 2, 3, 1)

    def prepare(self, image: np.ndarray) -> Any:
        """Return the network's input: resized and normalised."""
        from yolact_ros.model.graphs.detect import normalise

        return normalise(self.resize(image), self.network.config)


@pytest.fixture(scope="session")
def parity():
    """Return a function that loads a case by name, each once per session."""
    from yolact_ros.model.weights.checkpoint import load_official_weights
    from yolact_ros.model.yolact import Yolact
    from yolact_ros.variants import variant

    @functools.cache
    def load(name: str) -> Parity:
        entries = recorded.official_weights(name)
        network = Yolact(variant(recorded.description(name)["variant"]))
        load_official_weights(network, entries)
        return Parity(recorded.arrays(name), entries, network.eval(), recorded.picture(name))

    return load


@pytest.fixture(scope="session")
def state_dicts():
    """Return the entries of every official configuration, as tensors without memory."""
    return {
        configuration: {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        for configuration, shapes in recorded.official_shapes().items()
    }
