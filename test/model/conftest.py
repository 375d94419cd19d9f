"""The reference's numbers, and our networks with the same weights and images."""

from __future__ import annotations

import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

IMAGES = {
    "yolact_resnet50_s1": "coffee_480x320",
    "yolact_plus_resnet50_s1": "astronaut_384",
    "yolact_edge_mobilenetv2_s1": "coffee_480x320",
    "yolact_edge_vid_resnet50_s1": "astronaut_384",
}


@dataclass(frozen=True)
class Parity:
    """One recorded case.

    `golden` holds the reference's arrays, `entries` the official state dict, `image` the source
    (h, w, 3) uint8 BGR.
    """

    golden: dict[str, np.ndarray]
    entries: dict[str, Any]
    network: Any
    image: np.ndarray

    def resize(self, image: np.ndarray) -> Any:
        """The reference's `--image` path: bilinear resize of floats in torch; (1, H, W, 3)."""
        tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
        tensor = torch.nn.functional.interpolate(
            tensor, self.network.config.input_size, mode="bilinear", align_corners=False
        )
        return tensor.permute(0, 2, 3, 1)

    def prepare(self, image: np.ndarray) -> Any:
        """The network's input: resized and normalised."""
        from yolact_ros.model.graphs.detect import normalise

        return normalise(self.resize(image), self.network.config)


@pytest.fixture(scope="session")
def parity(shared: Path):
    """Loads a case by name, once in a session."""
    from yolact_ros.model.weights.checkpoint import load_official_weights
    from yolact_ros.model.yolact import Yolact
    from yolact_ros.variants import variant

    folder = shared / "parity"
    spec = importlib.util.spec_from_file_location("seeded_weights", folder / "seeded_weights.py")
    seeded_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded_weights)

    @functools.cache
    def load(name: str) -> Parity:
        case = json.loads((folder / "cases" / f"{name}.json").read_text())
        entries = seeded_weights.seeded_state_dict(case)
        network = Yolact(variant(case["config"]))
        load_official_weights(network, entries)
        with np.load(folder / "cases" / f"{name}.golden.npz") as arrays:
            golden = dict(arrays)
        image = cv2.imread(str(folder / "images" / f"{IMAGES[name]}.png"))
        return Parity(golden, entries, network.eval(), image)

    return load


@pytest.fixture(scope="session")
def state_dicts(shared: Path):
    """Entries of every official configuration, as tensors without memory."""
    files = sorted((shared / "statedicts").glob("*.json"))
    if not files:
        pytest.skip(f"no state dicts in {shared / 'statedicts'}")
    return {
        file.stem: {
            name: torch.empty(shape, device="meta")
            for name, shape in json.loads(file.read_text()).items()
        }
        for file in files
    }
