"""Apply the effects of a camera to an image: exposure, colour balance, blur, noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np


@dataclass(frozen=True)
class Lens:
    """Holds the properties of a camera, constant over a clip.

    Attributes:
        gain: (3,) exposure and white balance of the channels B, G, R.
        gamma: exponent of the tone curve.
        blur: standard deviation of the blur in pixels.
        noise: standard deviation of the sensor noise in grey levels.
        vignette: fraction of light that is lost in the corners.
    """

    gain: tuple[float, float, float]
    gamma: float
    blur: float
    noise: float
    vignette: float


def random_lens(random: np.random.Generator) -> Lens:
    """Draw a random camera."""
    exposure = random.uniform(0.8, 1.3)
    return Lens(
        gain=tuple((exposure * (1 + random.normal(0, 0.05, 3))).tolist()),
        gamma=random.uniform(0.75, 1.2),
        blur=random.uniform(0.3, 1.0) if random.random() < 0.7 else 0.0,
        noise=random.uniform(0.5, 5.0),
        vignette=random.uniform(0.0, 0.3),
    )


def video_lens(lens: Lens) -> Lens:
    """Return the camera with a video encoder, which keeps neither noise nor fine detail."""
    return replace(lens, noise=min(lens.noise, 1.0), blur=max(lens.blur, 0.8))


def photograph(image: np.ndarray, lens: Lens, random: np.random.Generator) -> np.ndarray:
    """Make a clean rendering look like a photograph.

    Args:
        image: (H, W, 3) uint8 BGR.
        lens: camera.
        random: random generator for the noise.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    height, width = image.shape[:2]
    levels = (np.arange(256) / 255) ** lens.gamma * 255
    table = np.clip(levels[:, None] * np.array(lens.gain), 0, 255).astype(np.float32)
    picture = np.stack([table[image[..., c], c] for c in range(3)], axis=-1)
    if lens.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), lens.blur)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    picture *= (1 - lens.vignette * (rows**2 + columns**2) / 2)[..., None]
    picture += random.standard_normal((height, width, 1), np.float32) * lens.noise
    return np.clip(picture, 0, 255).astype(np.uint8)
