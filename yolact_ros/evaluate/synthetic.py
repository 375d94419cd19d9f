"""Create synthetic predictions and pictures for measuring time, not accuracy."""

from __future__ import annotations

import numpy as np

from yolact_ros.config import ModelConfig
from yolact_ros.priors import make_priors

PRIORS_PER_OBJECT = 12  # above the threshold, as for a trained network


def synthetic_predictions(
    model: ModelConfig, *, instances: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return outputs of the graph `detect` for a scene with `instances` objects.

    The sides of the objects are distributed log-uniformly between 4 and 60 % of the image's sides,
    as in COCO. Several priors detect each object with its one class; all other scores are low.
    """
    rng = np.random.default_rng(seed)
    num_priors = len(make_priors(model))
    sides = np.exp(rng.uniform(np.log(0.04), np.log(0.6), (instances, 2)))
    centres = rng.uniform(sides / 2, 1 - sides / 2)
    objects = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)

    boxes = rng.uniform(0, 1, (num_priors, 4))
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(0.02, 0.3, (num_priors, 2))
    class_scores = rng.uniform(0, 0.01, (num_priors, model.num_classes))
    coefficients = rng.uniform(-1, 1, (num_priors, model.num_prototypes))
    seen = rng.permutation(num_priors)[: instances * PRIORS_PER_OBJECT]
    owners = np.arange(len(seen)) % max(instances, 1)
    jitter = rng.normal(0, 0.04, (len(seen), 4)) * np.tile(sides, 2)[owners]
    boxes[seen] = objects[owners] + jitter
    classes = rng.integers(0, model.num_classes, max(instances, 1))
    class_scores[seen, classes[owners]] = rng.uniform(0.4, 0.95, len(seen))
    return {
        "boxes": boxes.astype(np.float32),
        "class_scores": class_scores.astype(np.float32),
        "coefficients": coefficients.astype(np.float32),
        "prototypes": _smooth_prototypes(model, rng),
    }


def synthetic_image(size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Return a (height, width, 3) uint8 picture of smooth coloured waves with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    phases = rng.uniform(0, 12, (3, 3))
    waves = np.stack([np.sin(x * a + y * b + c) for a, b, c in phases], axis=-1)
    return np.clip(128 + 90 * waves + rng.normal(0, 10, waves.shape), 0, 255).astype(np.uint8)


def _smooth_prototypes(model: ModelConfig, rng: np.random.Generator) -> np.ndarray:
    height, width = model.prototype_size
    y, x = np.mgrid[:height, :width] / max(height, width)
    a, b, c = rng.uniform(-20, 20, (3, model.num_prototypes))
    waves = np.sin(x[..., None] * a + y[..., None] * b + c)
    return np.maximum(2 * waves, 0).astype(np.float32)
