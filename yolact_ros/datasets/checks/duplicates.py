"""Find duplicate photographs by their bytes and by their appearance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

THUMBNAIL = 16  # side in pixels
FLAT = 3.0  # grey levels; images with less thumbnail deviation are too flat to compare
NEAR_CORRELATION = 0.97  # minimum correlation of their thumbnails


@dataclass(frozen=True, eq=False)
class ImageHash:
    """Holds what is needed to recognise an image.

    Attributes:
        exact: hash of the file's bytes.
        thumbnail: (16, 16) float32 with mean 0 and norm 1; all zero for a single-colour image.
    """

    exact: bytes
    thumbnail: np.ndarray


def hash_image(data: bytes, grey: np.ndarray) -> ImageHash:
    """Hash an image.

    Args:
        data: the file's bytes.
        grey: (H, W) uint8, the image.
    """
    thumbnail = cv2.resize(grey.astype(np.float32), (THUMBNAIL,) * 2, interpolation=cv2.INTER_AREA)
    flat = thumbnail.std() < FLAT
    thumbnail = thumbnail - thumbnail.mean()
    thumbnail = np.zeros_like(thumbnail) if flat else thumbnail / np.linalg.norm(thumbnail)
    return ImageHash(hashlib.blake2b(data, digest_size=16).digest(), thumbnail)


def equal_images(hashes: Iterable[ImageHash]) -> list[list[int]]:
    """Return groups of two or more indices whose files have the same bytes."""
    groups: dict[bytes, list[int]] = {}
    for position, image in enumerate(hashes):
        groups.setdefault(image.exact, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def similar_images(first: list[ImageHash], second: list[ImageHash]) -> Iterator[tuple[int, int]]:
    """Yield pairs that look alike, even if mirrored, brighter or compressed differently.

    Each image of `second` yields at most one pair, with the most similar image of `first`.
    Single-colour images match no other image.
    """
    if not first:
        return
    known = np.stack([image.thumbnail for image in first])
    known = np.concatenate([known, known[:, :, ::-1]]).reshape(2 * len(first), -1)
    for position, image in enumerate(second):
        likeness = known @ image.thumbnail.reshape(-1)
        if likeness.max() > NEAR_CORRELATION:
            yield int(likeness.argmax()) % len(first), position
