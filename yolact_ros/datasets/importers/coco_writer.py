"""Data sets of other programs, written in COCO's format: one annotation file for each split."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as rle_masks

from yolact_ros.datasets.masks import segmentation_fault, segmentation_rle
from yolact_ros.errors import DatasetError


@dataclass(frozen=True)
class ForeignInstance:
    """An annotated object.

    Attributes:
        name: of its class.
        segmentation: COCO's: polygons (x1 y1 x2 y2 ... in pixels), or RLE.
    """

    name: str
    segmentation: Any


@dataclass(frozen=True)
class ForeignImage:
    """An annotated image of another program's data set.

    Attributes:
        split: e.g. `train`.
        path: of the image.
        size: (height, width) in pixels.
        instances: what can be used.
        skipped: why annotations cannot be used, and how many for each reason.
    """

    split: str
    path: Path
    size: tuple[int, int]
    instances: Sequence[ForeignInstance]
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass
class ImportReport:
    """What became of a data set.

    Attributes:
        images, instances: written, by split.
        skipped: why annotations were left out, and how many for each reason.
        files: the annotation files, by split.
    """

    images: Counter[str] = field(default_factory=Counter)
    instances: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    files: dict[str, Path] = field(default_factory=dict)


def write_coco(
    images: Iterable[ForeignImage],
    folder: Path,
    *,
    classes: Sequence[str] = (),
    copy: bool = False,
) -> ImportReport:
    """Write `SPLIT.json` and the images in `SPLIT/`.

    Args:
        images: of all splits.
        folder: made if absent; must be empty.
        classes: names in the order of category ids, from 1 on; others follow in the order of the
            alphabet.
        copy: copy the images; otherwise they are linked.

    Raises:
        DatasetError: the folder is not empty or cannot be written, or there are no images.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not an empty folder; choose another one, or remove it.")
    found = list(images)
    if not found:
        raise DatasetError("The data set has no images.")
    names = {instance.name for image in found for instance in image.instances}
    ordered = [*classes, *sorted(names - set(classes))]
    ids = {name: number for number, name in enumerate(ordered, start=1)}
    report = ImportReport()
    contents: dict[str, dict[str, list[dict[str, Any]]]] = {}
    try:
        for image in found:
            content = contents.setdefault(image.split, {"images": [], "annotations": []})
            _add_image(image, content, ids, report, folder=folder / image.split, copy=copy)
        for split, content in contents.items():
            report.files[split] = folder / f"{split}.json"
            categories = [{"id": number, "name": name} for name, number in ids.items()]
            report.files[split].write_text(json.dumps({**content, "categories": categories}))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written: {error}.") from error
    return report


def _add_image(
    image: ForeignImage,
    content: Mapping[str, list[dict[str, Any]]],
    ids: Mapping[str, int],
    report: ImportReport,
    *,
    folder: Path,
    copy: bool,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    taken = {entry["file_name"] for entry in content["images"]}
    name = image.path.name
    if name in taken:  # of another folder
        name = f"{image.path.stem}_{len(taken)}{image.path.suffix}"
    if copy:
        shutil.copyfile(image.path, folder / name)
    else:
        os.symlink(image.path.resolve(), folder / name)
    height, width = image.size
    image_id = len(content["images"]) + 1
    content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
    report.images[image.split] += 1
    report.skipped.update(image.skipped)
    for instance in image.instances:
        fault = segmentation_fault(instance.segmentation, image.size)
        if fault:
            report.skipped[fault] += 1
            continue
        rle = segmentation_rle(instance.segmentation, height, width)
        area = float(rle_masks.area(rle))
        if not area:
            report.skipped["without a pixel in the image"] += 1
            continue
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": image_id,
                "category_id": ids[instance.name],
                "segmentation": instance.segmentation,
                "bbox": rle_masks.toBbox(rle).tolist(),
                "area": area,
                "iscrowd": 0,
            }
        )
        report.instances[image.split] += 1
