"""Write data sets of other programs in COCO format, one annotation file per split."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as rle_masks

from yolact_ros.datasets.findings import ERROR, WARNING, Findings, format_findings
from yolact_ros.datasets.importers.foreign import ForeignImage, ForeignInstance, fit_to_picture
from yolact_ros.datasets.masks import read_segmentation, segmentation_rle
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown

LONGEST_NAME = 200  # bytes of a file name; the system's limit is 255
# Separates Roboflow's versions of one photograph from its name.
VERSION = re.compile(r"\.rf\.[0-9A-Za-z]+(?=\.|$)")


@dataclass
class ImportReport:
    """Summarises an import.

    Attributes:
        images, instances: number written, by split.
        files: the annotation files, by split.
        findings: everything that was found.
    """

    images: Counter[str] = field(default_factory=Counter)
    instances: Counter[str] = field(default_factory=Counter)
    files: dict[str, Path] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)


def write_coco(
    images: Iterable[ForeignImage],
    folder: Path,
    *,
    findings: Findings,
    classes: Sequence[str] = (),
    drop_empty_classes: bool = False,
    copy: bool = False,
    validation: float = 0.0,
    strict: bool = False,
) -> ImportReport:
    """Write `SPLIT.json` and the images in `SPLIT/`.

    Args:
        images: images of all splits.
        folder: created if absent; must be empty. After an error, everything written is removed.
        findings: findings to which reading `images` adds.
        classes: names in category-id order, from 1 on; other classes follow alphabetically.
        drop_empty_classes: whether to omit those of `classes` that have no instance.
        copy: whether to copy the images; otherwise they are linked.
        validation: fraction of the images of `train` that become `val`; the choice depends only on
            their names, so that it is stable when images are added, and versions of one
            photograph stay together.
        strict: whether to stop at the first error of the data set.

    Raises:
        DatasetError: the folder is not empty or cannot be written, no image can be used, there
            has a split `val` besides `validation`, or `strict` is set and there is an error.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not an empty folder; choose another one, or empty it.")
    found = []
    for image in images:
        fitted = fit_to_picture(image, findings)
        if strict and findings.count(ERROR):
            raise DatasetError(f"--strict: {format_findings(findings).splitlines()[0].strip()}")
        if fitted is not None:
            found.append(fitted)
    if not found:
        raise DatasetError(f"No image can be used.\n{format_findings(findings)}")
    splits = _splits(found, validation)
    names = {instance.name for image in found for instance in image.instances}
    listed = [name for name in dict.fromkeys(classes) if name in names or not drop_empty_classes]
    for name in sorted(set(classes) - names):
        findings.add(WARNING, "class without an instance", name)
    ordered = [*listed, *sorted(names - set(listed))]
    ids = {name: number for number, name in enumerate(ordered, start=1)}
    report = ImportReport(findings=findings)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writers = {split: _SplitWriter(folder / split, ids, report) for split in splits}
        for image, split in zip(found, splits, strict=True):
            writers[split].add(image, split, copy=copy)
        for split, writer in writers.items():
            report.files[split] = folder / f"{split}.json"
            report.files[split].write_text(json.dumps(writer.content()))
        if strict and findings.count(ERROR):
            raise DatasetError(f"--strict: {format_findings(findings).splitlines()[0].strip()}")
    except BaseException as error:
        shutil.rmtree(folder.resolve(), ignore_errors=True)
        if existed:
            folder.resolve().mkdir(exist_ok=True)
        if isinstance(error, OSError):
            raise DatasetError(f"{folder} cannot be written: {error}.") from error
        raise
    return report


def _splits(images: Sequence[ForeignImage], validation: float) -> list[str]:
    """Return the split of each image."""
    if validation and any(image.split == "val" for image in images):
        raise DatasetError("The data set already has a split val; omit --validation.")
    splits = []
    for image in images:
        name = VERSION.sub("", image.path.name)
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        moved = int.from_bytes(digest[:4], "big") < validation * 2**32
        splits.append("val" if moved and image.split == "train" else image.split)
    # With few images, all may fall into the same split.
    if validation and len(images) > 1 and len(set(splits)) == 1:
        splits[-1] = "val" if splits[-1] == "train" else "train"
    return splits


class _SplitWriter:
    """Collects the entries of one annotation file and stores its images in a folder."""

    def __init__(self, folder: Path, ids: dict[str, int], report: ImportReport) -> None:
        self.folder, self.ids, self.report = folder, ids, report
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._taken: set[str] = set()
        self._sources: set[Path] = set()

    def content(self) -> dict[str, Any]:
        """Return the content of the annotation file."""
        categories = [{"id": number, "name": name} for name, number in self.ids.items()]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}

    def add(self, image: ForeignImage, split: str, *, copy: bool) -> None:
        """Write one image whose size is known."""
        assert image.size is not None
        findings = self.report.findings
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self._free_name(image.path)
        if image.data is not None:
            (self.folder / name).write_bytes(image.data)
        else:
            source = image.path.resolve()
            if source in self._sources:
                findings.add(WARNING, "file listed twice", shown(image.path))
            self._sources.add(source)
            if copy:
                shutil.copyfile(source, self.folder / name)
            else:
                (self.folder / name).symlink_to(source)
        image_id = len(self.images) + 1
        height, width = image.size
        self.images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        self.report.images[split] += 1
        for instance in image.instances:
            self._add_instance(instance, image_id, image, split)

    def _add_instance(
        self, instance: ForeignInstance, image_id: int, image: ForeignImage, split: str
    ) -> None:
        assert image.size is not None
        findings = self.report.findings
        where = instance.where or shown(image.path.name)
        common = {
            "id": len(self.annotations) + 1,
            "image_id": image_id,
            "category_id": self.ids[instance.name],
        }
        if instance.box is not None:
            area = instance.box[2] * instance.box[3]
            rest = {"segmentation": [], "bbox": list(instance.box), "area": area, "iscrowd": 0}
            self.annotations.append({**common, **rest})
            return
        shape = read_segmentation(instance.segmentation, image.size)
        if isinstance(shape, str):
            findings.add(ERROR, f"annotation {shape}", where)
            return
        if shape.broken:
            findings.add(WARNING, "broken polygon beside usable ones", where)
        rle = segmentation_rle(shape.segmentation, *image.size)
        area = float(rle_masks.area(rle))
        if not area:
            findings.add(ERROR, "annotation whose mask has no pixel", where)
            return
        if not instance.crowd:  # crowds are counted by the reader
            self.report.instances[split] += 1
        rest = {
            "segmentation": shape.segmentation,
            "bbox": rle_masks.toBbox(rle).tolist(),
            "area": area,
            "iscrowd": int(instance.crowd),
        }
        self.annotations.append({**common, **rest})

    def _free_name(self, path: Path) -> str:
        """Return the name of a file, with a number if another image has that name."""
        stem, suffix = path.stem, path.suffix
        while len(f"{stem}{suffix}".encode("utf-8", "surrogateescape")) > LONGEST_NAME:
            stem, suffix = stem[: LONGEST_NAME // 4], suffix[:10]
        name, number = f"{stem}{suffix}", 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}{suffix}"
        self._taken.add(name)
        return name
