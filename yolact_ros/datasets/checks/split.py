"""What is wrong with a data set, found before training instead of during it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from yolact_ros.datasets.checks.duplicates import equal_images, hash_image, similar_images
from yolact_ros.datasets.checks.findings import ERROR, WARNING, Findings, SplitReport
from yolact_ros.datasets.checks.instances import check_instances
from yolact_ros.datasets.coco import read_annotations
from yolact_ros.datasets.files import IMAGE_SUFFIXES
from yolact_ros.errors import DatasetError

# Instances below which a class is rare, and how many times smaller than the largest class.
RARE_COUNT = 20
RARE_SHARE = 100


def check_split(annotations_json: str | Path, image_folder: str | Path) -> SplitReport:
    """Look at every image and every annotation of one file.

    Raises:
        DatasetError: the file is no annotation file at all, or the folder does not exist.
    """
    report = SplitReport(Path(annotations_json), Path(image_folder))
    content = read_annotations(report.annotations)
    if not report.folder.is_dir():
        raise DatasetError(f"The image folder {report.folder} does not exist.")
    names = _check_categories(content["categories"], report)
    images = _check_image_entries(content["images"], report)
    annotations = _check_annotation_entries(content["annotations"], images, names, report)
    for image_id, image in tqdm(images.items(), desc=report.annotations.name, unit="image"):
        size = _check_image_file(image, report) or _listed_size(image)
        if size is None:
            continue
        usable = check_instances(annotations.get(image_id, []), size, report.findings)
        classes = [names[annotation["category_id"]] for annotation in usable]
        report.instances.update(classes)
        report.images_with.update(set(classes))
        if not usable:
            report.empty_images += 1
            report.findings.add(WARNING, "image without an instance", image["file_name"])
    _check_balance(report)
    for group in equal_images(report.hashes):
        same = " = ".join(report.files[i] for i in group)
        report.findings.add(WARNING, "the same image several times", same)
    return report


def compare_splits(first: SplitReport, second: SplitReport) -> Findings:
    """Find what two splits must not share, and where they should agree."""
    findings = Findings()
    positions = {image.exact: i for i, image in enumerate(first.hashes)}
    different = []
    for i, image in enumerate(second.hashes):
        if image.exact in positions:
            place = f"{first.files[positions[image.exact]]} = {second.files[i]}"
            findings.add(ERROR, "the same image in both", place)
        else:
            different.append(i)
    for i, j in similar_images(first.hashes, [second.hashes[k] for k in different]):
        place = f"{first.files[i]} ~ {second.files[different[j]]}"
        findings.add(WARNING, "nearly the same image in both", place)
    for name in sorted(first.instances.keys() ^ second.instances.keys()):
        findings.add(WARNING, "a class that one of them does not list", name)
    return findings


def check_unlisted(reports: list[SplitReport]) -> None:
    """Add to `reports` the images in their folders that none of them lists."""
    for folder in dict.fromkeys(report.folder.resolve() for report in reports):
        sharing = [report for report in reports if report.folder.resolve() == folder]
        listed = set().union(*(report.listed for report in sharing))
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.suffix.lower() in IMAGE_SUFFIXES and name not in listed:
                sharing[0].findings.add(WARNING, "image that is not listed", name)


def _check_categories(categories: list[Any], report: SplitReport) -> dict[int, str]:
    """Name of each category id."""
    names: dict[int, str] = {}
    for place, category in enumerate(categories):
        if not isinstance(category, dict) or not isinstance(category.get("id"), int):
            report.findings.add(ERROR, "category without a number as id", f"entry {place}")
            continue
        name = str(category.get("name") or category["id"])
        if not category.get("name"):
            report.findings.add(WARNING, "category without a name", f"id {category['id']}")
        if category["id"] in names:
            report.findings.add(ERROR, "category id used twice", f"id {category['id']}")
        elif name in names.values():
            report.findings.add(WARNING, "two categories of one name", name)
        names[category["id"]] = name
        report.instances[name] += 0
    return names


def _check_image_entries(entries: list[Any], report: SplitReport) -> dict[int, dict[str, Any]]:
    """Entries of images by id."""
    images: dict[int, dict[str, Any]] = {}
    for place, entry in enumerate(entries):
        report.images += 1
        usable = isinstance(entry, dict) and isinstance(entry.get("id"), int)
        if not usable or not isinstance(entry.get("file_name"), str):
            report.findings.add(ERROR, "image entry without id or file_name", f"entry {place}")
            continue
        if entry["id"] in images:
            report.findings.add(ERROR, "image id used twice", f"id {entry['id']}")
            continue
        name = str(Path(entry["file_name"]))
        if name in report.listed:
            report.findings.add(WARNING, "file listed twice", name)
        report.listed.add(name)
        images[entry["id"]] = entry
    return images


def _check_annotation_entries(
    entries: list[Any],
    images: Mapping[int, Any],
    names: Mapping[int, str],
    report: SplitReport,
) -> dict[int, list[dict[str, Any]]]:
    """Annotations by image id, those that belong to no image or class left out."""
    grouped: dict[int, list[dict[str, Any]]] = {}
    ids: set[int] = set()
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            report.findings.add(ERROR, "annotation that is no object", f"entry {place}")
            continue
        where = f"annotation {entry.get('id', f'entry {place}')}"
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        if not isinstance(image_id, int) or image_id not in images:
            report.findings.add(ERROR, "annotation of an unknown image", f"{where}: {image_id}")
            continue
        where += f" in {images[image_id]['file_name']}"
        if not isinstance(category_id, int) or category_id not in names:
            kind = "annotation of an unknown category"
            report.findings.add(ERROR, kind, f"{where}: {category_id}")
            continue
        if isinstance(entry.get("id"), int):
            if entry["id"] in ids:
                report.findings.add(WARNING, "annotation id used twice", where)
            ids.add(entry["id"])
        grouped.setdefault(image_id, []).append({**entry, "where": where})
    return grouped


def _check_image_file(image: Mapping[str, Any], report: SplitReport) -> tuple[int, int] | None:
    """(height, width) of the file, None where it cannot be read."""
    name = image["file_name"]
    path = report.folder / name
    try:
        data = path.read_bytes()
    except OSError:
        kind = "image that cannot be read" if path.exists() else "missing image"
        report.findings.add(ERROR, kind, name)
        return None
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if grey is None:
        report.findings.add(ERROR, "image that cannot be decoded", name)
        return None
    if _is_cut_off(data):
        report.findings.add(ERROR, "image whose end is missing", name)
    height, width = grey.shape
    listed = image.get("height", height), image.get("width", width)
    if listed != (height, width):
        place = f"{name}: {width}x{height}, listed as {listed[1]}x{listed[0]}"
        report.findings.add(ERROR, "image of another size than listed", place)
    report.files.append(name)
    report.hashes.append(hash_image(data, grey))
    return height, width


def _listed_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) as the annotation file has them, None without usable ones."""
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
        return height, width
    return None


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end; decoders fill such an image with grey."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-65536:]
    return data.startswith(b"\x89PNG") and b"IEND" not in data[-65536:]


def _check_balance(report: SplitReport) -> None:
    most = max(report.instances.values(), default=0)
    for name, count in report.instances.items():
        if not count:
            report.findings.add(WARNING, "class without an instance", name)
        elif count < RARE_COUNT or count * RARE_SHARE < most:
            report.findings.add(WARNING, "rare class", f"{name} ({count}; the largest has {most})")
