"""Draw procedural textures, so that no two surfaces of the simulation look alike."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 256  # pixels


def random_texture(random: np.random.Generator) -> np.ndarray:
    """Draw a random texture of one of several types.

    Returns:
        (256, 256, 3) uint8 BGR.
    """
    kinds = (plain, wood, checks, cloth, blobs, gradient)
    kind = kinds[random.choice(len(kinds), p=(0.2, 0.28, 0.1, 0.16, 0.16, 0.1))]
    return np.clip(kind(random), 0, 255).astype(np.uint8)


def random_colour(random: np.random.Generator) -> np.ndarray:
    """Draw a (3,) float BGR colour in 0..255 of any hue, more often pale than vivid."""
    hue = random.uniform(0, 180)
    saturation = 255 * random.beta(1.3, 2.2)
    value = random.uniform(40, 250)
    pixel = np.array([[[hue, saturation, value]]], np.uint8)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float64)


def noise(random: np.random.Generator, *, cells: tuple[int, int]) -> np.ndarray:
    """Draw (256, 256) float smooth noise in about -1..1 with `cells` (rows, columns) bumps."""
    coarse = random.normal(0, 0.6, cells).astype(np.float32)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def plain(random: np.random.Generator) -> np.ndarray:
    """Draw one colour with stains and grain."""
    grain = random.normal(0, random.uniform(0, 8), (SIDE, SIDE, 1))
    stains = noise(random, cells=(6, 6))[..., None] * random.uniform(0, 20)
    return random_colour(random) + grain + stains


def wood(random: np.random.Generator) -> np.ndarray:
    """Draw planks with grain along them."""
    base = np.array([60, 110, 165]) * random.uniform(0.4, 1.4) + random.normal(0, 14, 3)
    grain = noise(random, cells=(int(random.integers(40, 120)), 4)) * random.uniform(8, 30)
    planks = int(random.integers(1, 7))
    tones = np.repeat(random.normal(0, 10, planks), -(-SIDE // planks))[:SIDE]
    surface = base + (grain + tones[:, None])[..., None]
    if planks > 1:
        surface[:: SIDE // planks] *= 0.6
    return surface


def checks(random: np.random.Generator) -> np.ndarray:
    """Draw tiles or a chequered cloth."""
    count = int(random.integers(2, 12))
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] * count // SIDE
    pattern = ((rows + columns) % 2)[..., None]
    grain = random.normal(0, random.uniform(0, 6), (SIDE, SIDE, 1))
    return np.where(pattern, random_colour(random), random_colour(random)) + grain


def cloth(random: np.random.Generator) -> np.ndarray:
    """Draw stripes of two colours in one or two directions."""
    first, second = random_colour(random), random_colour(random)
    position = np.arange(SIDE) * 2 * np.pi / SIDE
    across = np.sin(position * int(random.integers(1, 24)))
    along = np.sin(position * int(random.integers(1, 24))) * random.integers(0, 2)
    blend = (across[None, :] + along[:, None] + 2) / 4
    if random.random() < 0.5:
        blend = (blend > 0.5).astype(np.float64)
    weave = random.normal(0, random.uniform(0, 10), (SIDE, SIDE, 1))
    return first + blend[..., None] * (second - first) + weave


def blobs(random: np.random.Generator) -> np.ndarray:
    """Draw overlapping discs and boxes of many colours, as on prints and rugs."""
    surface = np.full((SIDE, SIDE, 3), random_colour(random))
    for _ in range(int(random.integers(4, 40))):
        colour = random_colour(random).tolist()
        x, y = (int(v) for v in random.integers(0, SIDE, 2))
        size = int(random.integers(4, 70))
        if random.random() < 0.5:
            cv2.circle(surface, (x, y), size // 2, colour, -1, cv2.LINE_AA)
        else:
            other = (x + size, y + int(random.integers(4, 70)))
            cv2.rectangle(surface, (x, y), other, colour, -1)
    return surface


def gradient(random: np.random.Generator) -> np.ndarray:
    """Draw a gradient of two colours with low-frequency noise."""
    first, second = random_colour(random), random_colour(random)
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    blend = np.clip(rows * np.sin(angle) + columns * np.cos(angle) + 0.5, 0, 1)
    blend = blend + noise(random, cells=(5, 5)) * 0.2
    return first + blend[..., None] * (second - first)
