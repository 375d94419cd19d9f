"""Find errors in a data set before training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle_masks
from tqdm import tqdm

from yolact_ros.datasets.annotations import ImageEntry, read_annotation_file
from yolact_ros.datasets.files import (
    IMAGE_SUFFIXES,
    PictureFinder,
    decode_picture,
    is_displayed_size,
    read_picture,
    report_rotation,
    walk,
)
from yolact_ros.datasets.findings import ERROR, NOTE, WARNING, Findings
from yolact_ros.datasets.masks import read_segmentation, segmentation_rle
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown
from yolact_ros.runtime.images.headers import read_header

# Number of instances below which a class is rare, and its minimum ratio to the largest class.
RARE_COUNT = 20
RARE_RATIO = 100


def check_split(annotations_json: str | Path, image_folder: str | Path) -> SplitReport:
    """Check every image and every annotation of one file.

    Raises:
        DatasetError: the file is not an annotation file, or the folder does not exist.
    """
    report = SplitReport(Path(annotations_json), Path(image_folder))
    if not report.folder.is_dir():
        raise DatasetError(f"The image folder {report.folder} does not exist.")
    read = read_annotation_file(report.annotations, report.folder)
    report.findings = read.findings
    report.instances.update(dict.fromkeys(read.names.values(), 0))
    unusable = ("image entry without a usable id or file_name", "image id used twice")
    report.images = len(read.images) + sum(read.findings.counts[(ERROR, k)] for k in unusable)
    find = PictureFinder(report.folder)
    for image_id, image in tqdm(read.images.items(), desc=report.annotations.name, unit="image"):
        _check_image_file(image, find, report)
        usable: list[dict[str, object]] = []
        if image.size is not None:
            annotations = read.annotations.get(image_id, [])
            name = shown(image.file_name)
            usable = check_instances(annotations, name, image.size, report.findings)
        classes = [read.names[annotation["category_id"]] for annotation in usable]  # type: ignore[index]
        report.instances.update(classes)
        report.images_with.update(set(classes))
        if not usable:
            report.empty_images += 1
            report.findings.add(WARNING, "image without an instance", shown(image.file_name))
    _check_balance(report)
    for group in equal_images(report.hashes):
        same = " = ".join(report.files[i] for i in group)
        report.findings.add(WARNING, "the same image several times", same)
    return report


def compare_splits(first: SplitReport, second: SplitReport) -> Findings:
    """Find images that two splits must not share, and check that their classes agree."""
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
        findings.add(WARNING, "class listed in only one of them", name)
    return findings


def check_unlisted(reports: list[SplitReport]) -> None:
    """Add the images in the folders of `reports` that no report lists."""
    for folder in dict.fromkeys(report.folder.resolve() for report in reports):
        sharing = [report for report in reports if report.folder.resolve() == folder]
        listed = set().union(*(report.listed for report in sharing))
        for path in sorted(walk(folder, IMAGE_SUFFIXES)):
            name = str(path.relative_to(folder))
            if name not in listed:
                sharing[0].findings.add(WARNING, "image that is not listed", shown(name))


def _check_image_file(image: ImageEntry, find: PictureFinder, report: SplitReport) -> None:
    """Compare an image file with its entry in the annotation file."""
    name, add = shown(image.file_name), report.findings.add
    path = find(image.file_name)
    if path is None:
        add(ERROR, "missing image", name)
        return
    if path != report.folder / image.file_name:
        add(NOTE, "image found under another path", f"{name}: {shown(path)}")
    report.listed.add(
        str(path.relative_to(report.folder)) if path.is_relative_to(report.folder) else str(path)
    )
    try:
        data = read_picture(path)
    except DatasetError:
        add(ERROR, "image that cannot be read", name)
        return
    header = read_header(data)
    grey = decode_picture(data, rotate=is_displayed_size(image.size, header), grey=True)
    if grey is None:
        add(ERROR, "image that cannot be decoded", name)
        return
    if _is_cut_off(data):
        add(ERROR, "image whose end is missing", name)
    if image.size not in (None, grey.shape):
        orientation = header.orientation if header else 1
        exif = f", EXIF orientation {orientation}" if orientation > 1 else ""
        place = f"{name}: {grey.shape[1]}x{grey.shape[0]}{exif}"
        listed = f"{place}, listed as {image.size[1]}x{image.size[0]}"
        add(ERROR, "image whose size differs from the listed one", listed)
    else:
        report_rotation(report.findings, name, image.size, header)
    report.files.append(name)
    report.hashes.append(hash_image(data, grey))


def _is_cut_off(data: bytes) -> bool:
    """Return whether a JPEG or PNG is truncated; decoders fill the rest with grey."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-65536:]
    return data.startswith(b"\x89PNG") and b"IEND" not in data[-65536:]


def _check_balance(report: SplitReport) -> None:
    most = max(report.instances.values(), default=0)
    for name, count in report.instances.items():
        if not count:
            report.findings.add(WARNING, "class without an instance", name)
        elif count < most and (count < RARE_COUNT or count * RARE_RATIO < most):
            report.findings.add(WARNING, "rare class", f"{name} ({count}; the largest has {most})")


@dataclass
class SplitReport:
    """Holds what was found in one annotation file and its images.

    Attributes:
        annotations: path of the annotation file.
        folder: image folder.
        images: number of listed images.
        listed: their file names.
        instances: number of usable instances by class name, without crowds; may be 0.
        images_with: number of images that show each class.
        empty_images: number of images without instances.
        findings: everything that was found.
        files: names of the readable images, in the order of `hashes`.
        hashes: hashes of these images.
    """

    annotations: Path
    folder: Path
    images: int = 0
    listed: set[str] = field(default_factory=set)
    instances: Counter[str] = field(default_factory=Counter)
    images_with: Counter[str] = field(default_factory=Counter)
    empty_images: int = 0
    findings: Findings = field(default_factory=Findings)
    files: list[str] = field(default_factory=list)
    hashes: list[ImageHash] = field(default_factory=list)


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


# Pixels by which boxes and corners may leave the image, because tools round differently.
OUTSIDE_TOLERANCE = 1.5
# Fraction of the image below which an object is tiny: 12x12 pixels at the reference's 550x550,
# half the side of the smallest prior.
TINY_FRACTION = (12 / 550) ** 2
# Mask IoU above which two annotations belong to the same object.
SAME_OBJECT = 0.9
# Rows of the table of mask IoUs per block: an image may have ten thousand objects.
IOU_ROWS = 256


def check_instances(
    annotations: list[dict[str, Any]], image: str, size: tuple[int, int], findings: Findings
) -> list[dict[str, Any]]:
    """Check the annotations of one image.

    Args:
        annotations: annotations from `read_annotation_file`.
        image: its file name.
        size: (height, width) that the annotations refer to.
        findings: receives the findings.

    Returns:
        The annotations that are not crowds.
    """
    usable, rles = [], []
    for annotation in annotations:
        where = f"annotation {annotation['id']} in {image}"
        for kind in _doubts(annotation, size):
            findings.add(WARNING, kind, where)
        if annotation["iscrowd"]:
            continue
        rle = segmentation_rle(annotation["segmentation"], *size)
        area = float(rle_masks.area(rle))
        if area < TINY_FRACTION * size[0] * size[1]:
            findings.add(WARNING, "tiny object", f"{where}: {area:.0f} pixels")
        usable.append(annotation)
        rles.append(rle)
    for start in range(0, len(rles) if len(rles) > 1 else 0, IOU_ROWS):
        rows = rles[start : start + IOU_ROWS]
        overlap = np.triu(rle_masks.iou(rows, rles, [0] * len(rles)), start + 1)
        for row, j in np.argwhere(overlap > SAME_OBJECT):
            first, second = usable[start + row], usable[j]
            same = first["category_id"] == second["category_id"]
            kind = "object annotated twice" if same else "one object with two classes"
            place = f"annotation {first['id']} in {image} and {second['id']}"
            findings.add(WARNING, kind, place)
    return usable


def _doubts(annotation: dict[str, Any], size: tuple[int, int]) -> Iterator[str]:
    """Yield oddities in the positions of mask and box."""
    shape = read_segmentation(annotation["segmentation"], size)
    if not isinstance(shape, str) and _leaves(shape.extent, size):
        yield "polygon that extends beyond the image"
    if "bbox" in annotation:
        x, y, width, height = annotation["bbox"]
        if _leaves((x, y, x + width, y + height), size):
            yield "box that extends beyond the image"


def _leaves(extent: tuple[float, ...], size: tuple[int, int]) -> bool:
    """Return whether x1 y1 x2 y2 is partly outside an image of (height, width) `size`."""
    x1, y1, x2, y2 = extent
    return (
        min(x1, y1) < -OUTSIDE_TOLERANCE
        or x2 > size[1] + OUTSIDE_TOLERANCE
        or y2 > size[0] + OUTSIDE_TOLERANCE
    )
