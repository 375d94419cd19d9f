"""Data sets in the form of Pascal VOC's segmentation: a PNG of classes and a PNG of objects each.

The PNGs have Pascal's palette, whose colours are the bits of the number: bits 0, 1, 2 are the
highest bits of red, green and blue, and so on. 0 is the background, 255 the rim of objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.datasets.files import image_size
from yolact_ros.datasets.importers.coco_writer import ForeignImage, ForeignInstance
from yolact_ros.errors import DatasetError

LISTS = Path("ImageSets") / "Segmentation"
RIM = 255


def read_voc(source: Path, classes: Sequence[str]) -> Iterator[ForeignImage]:
    """Read the images of the lists `train` and `val`.

    Args:
        source: the folder with `JPEGImages`, `SegmentationClass`, `SegmentationObject` and
            `ImageSets/Segmentation`.
        classes: names of the numbers from 1 on.

    Raises:
        DatasetError: a list or a file is missing, or a PNG has another palette.
    """
    lists = {split: source / LISTS / f"{split}.txt" for split in ("train", "val")}
    lists = {split: path for split, path in lists.items() if path.is_file()}
    if not lists:
        raise DatasetError(f"{source / LISTS} has neither train.txt nor val.txt.")
    for split, path in lists.items():
        for name in path.read_text(encoding="utf-8").split():
            image = source / "JPEGImages" / f"{name}.jpg"
            size = image_size(image)
            if size is None:
                raise DatasetError(f"{path} lists {name}, but {image} cannot be read.")
            class_numbers, object_numbers = (
                read_numbers(source / folder / f"{name}.png", size)
                for folder in ("SegmentationClass", "SegmentationObject")
            )
            instances, skipped = find_objects(class_numbers, object_numbers, classes)
            yield ForeignImage(split, image, size, instances, skipped)


def palette() -> np.ndarray:
    """(256, 3) uint8 B, G, R of Pascal's palette."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):  # of the number
        channel, place = bit % 3, bit // 3  # red, green, blue; from the highest bit down
        colours[:, 2 - channel] |= (numbers >> bit & 1) << (7 - place)
    return colours.astype(np.uint8)


def read_numbers(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 numbers of a PNG with Pascal's palette, or of a grey one.

    Raises:
        DatasetError: it is missing, of another size than (height, width) `size`, or its colours
            are no palette's.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None:
        raise DatasetError(f"{path} is missing or cannot be decoded.")
    if image.shape[:2] != tuple(size):
        raise DatasetError(f"{path} is of another size than its image.")
    if image.ndim == 2:
        return image
    codes = image[..., :3].astype(np.int64) @ (1, 256, 65536)
    known = palette().astype(np.int64) @ (1, 256, 65536)
    order = known.argsort()
    places = np.searchsorted(known[order], codes).clip(0, 255)
    numbers: np.ndarray = order[places].astype(np.uint8)
    if (known[numbers] != codes).any():
        raise DatasetError(f"{path} has colours that are not of Pascal's palette.")
    return numbers


def find_objects(
    class_numbers: np.ndarray, object_numbers: np.ndarray, classes: Sequence[str]
) -> tuple[list[ForeignInstance], Counter[str]]:
    """Make an instance of each object; its class is that of most of its pixels.

    Args:
        class_numbers: (H, W) uint8, the class of each pixel.
        object_numbers: (H, W) uint8, the object of each pixel.
        classes: names of the numbers from 1 on.

    Returns:
        Instances, and why objects were left out.
    """
    instances, skipped = [], Counter[str]()
    for number in np.unique(object_numbers[(object_numbers > 0) & (object_numbers < RIM)]):
        mask = object_numbers == number
        counts = np.bincount(class_numbers[mask], minlength=256)
        counts[[0, RIM]] = 0
        class_number = int(counts.argmax())
        if not counts[class_number] or class_number > len(classes):
            skipped["of an unknown class"] += 1
            continue
        rle = rle_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        segmentation = {"size": list(mask.shape), "counts": rle["counts"].decode()}
        instances.append(ForeignInstance(classes[class_number - 1], segmentation))
    return instances, skipped
