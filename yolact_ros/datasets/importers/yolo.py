"""Data sets with polygons in the form of YOLO: `data.yaml`, `images/`, `labels/`.

A line of a label file is a class number and x1 y1 x2 y2 ... as fractions of the image's sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from yolact_ros.datasets.files import image_size, list_images
from yolact_ros.datasets.importers.coco_writer import ForeignImage, ForeignInstance
from yolact_ros.errors import DatasetError

SPLITS = ("train", "val", "test")
DESCRIPTION = "data.yaml"


def read_yolo(source: Path) -> tuple[tuple[str, ...], Iterator[ForeignImage]]:
    """Open a data set.

    Args:
        source: the YAML file that describes it, or the folder that has it as `data.yaml`.

    Returns:
        The class names, and the images of all splits.

    Raises:
        DatasetError: the description is missing or names no classes or no images.
    """
    path = source / DESCRIPTION if source.is_dir() else source
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DatasetError(
            f"{path} cannot be read: {error}. Expected the {DESCRIPTION} of a YOLO data set."
        ) from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{path} lacks `names`, a list of the classes.")
    splits = {split: content[split] for split in SPLITS if content.get(split)}
    if not splits:
        raise DatasetError(f"{path} names no images: expected some of {', '.join(SPLITS)}.")
    classes = tuple(str(name) for name in names)
    return classes, _images(path, content.get("path"), splits, classes)


def _images(
    path: Path, root: Any, splits: dict[str, Any], classes: tuple[str, ...]
) -> Iterator[ForeignImage]:
    for split, entries in splits.items():
        for entry in entries if isinstance(entries, list) else [entries]:
            for image in _files(_find(path, root, str(entry))):
                size = image_size(image)
                if size is None:
                    raise DatasetError(f"The image {image} cannot be read; remove or replace it.")
                instances, skipped = read_label(_label_of(image), size, classes)
                yield ForeignImage(split, image, size, instances, skipped)


def _find(path: Path, root: Any, entry: str) -> Path:
    """A split's folder or list; exporters disagree about what its path is relative to."""
    bases = [path.parent / str(root or ""), Path(str(root or "")), path.parent]
    candidates = [base / entry for base in bases]
    candidates.append(path.parent / entry.removeprefix("../"))
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DatasetError(
        f"{path} names {entry!r}, which is none of: {', '.join(map(str, candidates))}."
    )


def _files(place: Path) -> list[Path]:
    if place.is_file():  # a list of images
        lines = place.read_text(encoding="utf-8").splitlines()
        return [place.parent / line.strip() for line in lines if line.strip()]
    return list_images(place)


def _label_of(image: Path) -> Path:
    """The label file of an image: in `labels` where the path has `images` last, or beside it."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_label(
    path: Path, size: tuple[int, int], classes: tuple[str, ...]
) -> tuple[list[ForeignInstance], Counter[str]]:
    """Read a label file; one that does not exist has no instance.

    Args:
        path: of the label file.
        size: (height, width) of the image.
        classes: names by class number.

    Returns:
        Instances, and why lines were left out.
    """
    skipped: Counter[str] = Counter()
    instances = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        if not line.strip():
            continue
        try:
            number, *values = (float(word) for word in line.split())
        except ValueError:
            skipped["in a line that is not numbers"] += 1
            continue
        if not number.is_integer() or not 0 <= number < len(classes):
            skipped["of an unknown class"] += 1
        elif len(values) == 4:
            skipped["with a box instead of a polygon"] += 1
        elif len(values) < 6 or len(values) % 2:
            skipped["without a usable polygon"] += 1
        else:
            scale = (size[1], size[0])
            polygon = [round(value * scale[i % 2], 2) for i, value in enumerate(values)]
            instances.append(ForeignInstance(classes[int(number)], [polygon]))
    return instances, skipped
