"""Find duplicate photographs by their bytes and by their appearance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

THUMBNAIL = 16  # side in pixels
FLAT = 3.0  # grey levels; images with less thumbnail deviation are too flat to compare
NEAR_BITS = 8  # of 63 that may differ between two versions of one photograph
NEAR_CORRELATION = 0.97  # minimum correlation of their thumbnails

_BITS_OF_16 = np.array([bin(number).count("1") for number in range(1 << 16)], np.uint8)


@dataclass(frozen=True, eq=False)
class ImageHash:
    """Holds what is needed to recognise an image.

    Attributes:
        exact: hash of the file's bytes.
        look: 63 bits: which low frequencies of the cosine transform are above their median.
        mirrored_look: `look` of the mirrored image.
        thumbnail: (16, 16) float32 with mean 0 and norm 1; all zero for a single-colour image.
    """

    exact: bytes
    look: int
    mirrored_look: int
    thumbnail: np.ndarray


def hash_image(data: bytes, grey: np.ndarray) -> ImageHash:
    """Hash an image.

    Args:
        data: the file's bytes.
        grey: (H, W) uint8, the image.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    thumbnail = cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    flat = thumbnail.std() < FLAT
    thumbnail = thumbnail - thumbnail.mean()
    thumbnail = np.zeros_like(thumbnail) if flat else thumbnail / np.linalg.norm(thumbnail)
    return ImageHash(
        exact=hashlib.blake2b(data, digest_size=16).digest(),
        look=_look(small),
        mirrored_look=_look(np.ascontiguousarray(small[:, ::-1])),
        thumbnail=thumbnail,
    )


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
    thumbnails = np.stack([image.thumbnail for image in first])
    mirrored = thumbnails[:, :, ::-1].reshape(len(first), -1)
    thumbnails = thumbnails.reshape(len(first), -1)
    looks = np.array([image.look for image in first], np.uint64)
    mirrored_looks = np.array([image.mirrored_look for image in first], np.uint64)
    for position, image in enumerate(second):
        best = NEAR_CORRELATION, -1
        for bits, pictures in ((looks, thumbnails), (mirrored_looks, mirrored)):
            near = np.flatnonzero(_count_bits(bits ^ np.uint64(image.look)) <= NEAR_BITS)
            likeness = pictures[near] @ image.thumbnail.reshape(-1)
            if len(near) and likeness.max() > best[0]:
                best = float(likeness.max()), int(near[likeness.argmax()])
        if best[1] >= 0:
            yield best[1], position


def _look(small: np.ndarray) -> int:
    """Return the perceptual hash of a (32, 32) float32 image."""
    low = cv2.dct(small)[:8, :8].reshape(-1)[1:]  # without the mean brightness
    bits = np.concatenate([[False], low > np.median(low)])
    return int(np.packbits(bits).view(">u8")[0])


def _count_bits(numbers: np.ndarray) -> np.ndarray:
    """Return the number of bits set in each of (N,) uint64 `numbers`."""
    return _BITS_OF_16[numbers.view(np.uint16).reshape(-1, 4)].sum(axis=1)
