"""Read annotated images in COCO format, without torch.

Format: https://cocodataset.org/#format-data (instances). Files of YouTube-VIS are read as the
frames of their videos.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.datasets.annotations import AnnotationFile, read_annotation_file
from yolact_ros.datasets.files import (
    PictureFinder,
    clean_name,
    decode_picture,
    is_displayed_size,
    read_picture,
)
from yolact_ros.datasets.findings import ERROR, EXAMPLES, NOTE, WARNING, format_findings
from yolact_ros.datasets.masks import MaskCrops, crop_mask
from yolact_ros.datasets.records import SharedRecords
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown
from yolact_ros.runtime.images.headers import read_header

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """Holds one image and its instances; N may be 0.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        boxes: (N, 4) float32 x1 y1 x2 y2 in pixels of `image`.
        masks: (N, H, W) uint8, 0 or 1; `MaskCrops` as read from a file, an array after resizing.
        class_ids: (N,) int64, 0-based.
        crowd: (N,) bool; such an instance covers a group, and is neither learned nor counted.
        image_id: id of the image in its annotation file.
        file_name: file of the image, relative to the image folder.
        track_ids: (N,) int64, object ids within a video; empty for single images.
        passed_over: why the images that this one replaces cannot be used.
        box_only: (N,) bool; such an instance has a box but no mask, and its mask here is the whole
            box. It counts as a crowd unless the data set was opened with `learn_boxes`.
    """

    image: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray | MaskCrops
    class_ids: np.ndarray
    crowd: np.ndarray
    image_id: int
    file_name: str
    track_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    passed_over: tuple[str, ...] = ()
    box_only: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)


class CocoDataset:
    """Provides the images of a folder with the instances of one COCO annotation file.

    Worker processes share the annotations; see `SharedRecords`.

    Attributes:
        annotations_path: the annotation file.
        classes: class names in the order of class ids.
        category_ids: class id to the file's category id; classes missing from the file are
            absent.
        image_ids: ids of all images, in ascending order; `load(i)` reads image i.
        instances: number of instances of each class, without crowds.
        other_names: categories of the file that were not requested.
        findings: everything that was found in the file.
    """

    def __init__(
        self,
        annotations_json: str | Path,
        image_folder: str | Path,
        classes: tuple[str, ...] | None = None,
        *,
        learn_boxes: bool = False,
    ) -> None:
        """Read the annotations; images are read by `load`.

        Args:
            annotations_json: the annotation file.
            image_folder: folder that contains the `file_name` of each image.
            classes: names of the classes to keep, in class-id order; None keeps every category
                of the file, in the order of category ids. A file whose categories have no names
                (the authors' Pascal SBD) numbers them from 1 on in this order.
            learn_boxes: count annotations with a box and no mask as instances, not as crowds.

        Raises:
            DatasetError: the file is missing, is not COCO JSON or contradicts itself, the folder
                is missing, or none of `classes` is a category of the file.
        """
        self.annotations_path = Path(annotations_json)
        self.image_folder = Path(image_folder)
        self._learn_boxes = learn_boxes
        self._find = PictureFinder(self.image_folder)
        read = read_annotation_file(self.annotations_path, self.image_folder, places=EXAMPLES)
        if not self.image_folder.is_dir():
            raise DatasetError(
                f"The image folder {self.image_folder} of {self.annotations_path} does not exist."
            )
        if read.ambiguous:
            raise DatasetError(f"{self.annotations_path}: {read.ambiguous[0]}")
        self.findings = read.findings
        self.classes, self.category_ids = self._map_categories(read, classes)
        asked = set(self.category_ids.values())
        self.other_names = [name for number, name in read.names.items() if number not in asked]
        self.image_ids = sorted(read.images)
        self.instances = [0] * len(self.classes)
        self._has_instances = np.zeros(len(self.image_ids), bool)
        self._records = SharedRecords(self._pack(read))
        for class_id, name in enumerate(self.classes):
            if not self.instances[class_id] and class_id in self.category_ids:
                self.findings.add(WARNING, "class without an instance", name)
        severe = self.findings.count(ERROR) or self.findings.count(WARNING)
        logger.log(logging.WARNING if severe else logging.INFO, "%s", self.account())

    def account(self) -> str:
        """Return a summary of the file and of the findings, one line per kind."""
        return (
            f"{self.annotations_path}: {len(self)} images, {sum(self.instances)} instances, "
            f"{len(self.classes)} classes, "
            f"{len(self) - int(self._has_instances.sum())} images without instances\n"
            f"{format_findings(self.findings)}"
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def file_name(self, index: int) -> str:
        """Return the name of image `index` in the annotation file."""
        return str(self._records[index][0])

    def image_path(self, index: int) -> Path:
        """Return the file of image `index`, or where it was expected if there is none."""
        name = self.file_name(index)
        return self._find(name) or self.image_folder / name

    def has_instances(self, index: int) -> bool:
        """Return whether image `index` has an instance that is not a crowd."""
        return bool(self._has_instances[index])

    def check_files(self) -> None:
        """Check that all images exist, so that a long run does not fail late.

        Raises:
            DatasetError: images are missing; the message names the first ones and their number.
        """
        names = (self._records[index][0] for index in range(len(self)))
        missing = [shown(self.image_folder / name) for name in names if self._find(name) is None]
        if missing:
            raise DatasetError(
                f"{len(missing)} of {len(self)} images named in {self.annotations_path} are "
                f"missing: {', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}"
            )

    def load(self, index: int) -> Sample:
        """Read image `index` and its instances.

        Raises:
            DatasetError: the image is missing, cannot be decoded, or differs in size from the
                annotation file.
        """
        image = self.read_image(index)
        size = (image.shape[0], image.shape[1])
        boxes, corners, crops, kept = [], [], [], []
        for annotation in self.annotations(index):
            corner, crop = crop_mask(annotation["segmentation"], size)
            if not crop.size:
                continue  # smaller than a pixel
            boxes.append(_box(annotation, corner, crop, size))
            corners.append(corner)
            crops.append(crop)
            kept.append(annotation)
        tracks = [annotation["track_id"] for annotation in kept if "track_id" in annotation]
        return Sample(
            image=image,
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
            masks=MaskCrops(size, corners, crops),
            class_ids=np.asarray([annotation["class_id"] for annotation in kept], np.int64),
            crowd=np.asarray([annotation["iscrowd"] for annotation in kept], bool),
            image_id=self.image_ids[index],
            file_name=self._records[index][0],
            track_ids=np.asarray(tracks, np.int64),
            box_only=np.asarray(["box_only" in annotation for annotation in kept], bool),
        )

    def videos(self) -> list[list[int]]:
        """Return the indices of the images of each video in order; empty for single images."""
        frames: dict[Any, list[int]] = {}
        for index in range(len(self)):
            video_id = self._records[index][2]
            if video_id is not None:
                frames.setdefault(video_id, []).append(index)
        return list(frames.values())

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """Return the usable annotations of image `index` in COCO format, with `class_id`."""
        annotations: list[dict[str, Any]] = self._records[index][3]
        return annotations

    def read_image(self, index: int) -> np.ndarray:
        """Read only image `index`, (H, W, 3) uint8 BGR.

        The size in the file determines whether the annotations refer to the picture as rotated by
        EXIF or to the stored pixels.

        Raises:
            DatasetError: see `load`.
        """
        name, expected, _, _ = self._records[index]
        path = self._find(name)
        if path is None:
            raise DatasetError(
                f"The image {shown(self.image_folder / name)} named in {self.annotations_path} "
                "is missing."
            )
        data = read_picture(path)
        header = read_header(data)
        image = decode_picture(data, rotate=is_displayed_size(expected, header))
        if image is None:
            raise DatasetError(f"The image {shown(path)} cannot be decoded; replace or remove it.")
        if expected is not None and image.shape[:2] != expected:
            orientation = header.orientation if header else 1
            exif = f" (EXIF orientation {orientation})" if orientation > 1 else ""
            raise DatasetError(
                f"The image {shown(path)} is {image.shape[1]}x{image.shape[0]} pixels{exif}, but "
                f"{self.annotations_path} says {expected[1]}x{expected[0]}. Annotate the image "
                "at its real size, or let `yolact import-dataset coco` scale the annotations."
            )
        return image

    def _map_categories(
        self, read: AnnotationFile, classes: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], dict[int, int]]:
        names = dict(read.names)
        for number in read.unnamed:
            if classes and 1 <= number <= len(classes):
                names[number] = classes[number - 1]
        if classes is None:
            ordered = sorted(names)
            return tuple(names[i] for i in ordered), dict(enumerate(ordered))
        ids = {name: category_id for category_id, name in names.items()}
        mapped = {c: ids[clean_name(n)] for c, n in enumerate(classes) if clean_name(n) in ids}
        if not mapped:
            raise DatasetError(
                f"{self.annotations_path} has none of the classes {', '.join(classes)}; "
                f"its categories are: {', '.join(names.values()) or 'none'}."
            )
        for class_id, name in enumerate(classes):
            if class_id not in mapped:
                likely = likely_name(name, [n for n in ids if n not in classes])
                place = f"{name} (likely meant: {likely})" if likely else name
                self.findings.add(WARNING, "class missing from the file", place)
        return classes, mapped

    def _pack(self, read: AnnotationFile) -> Any:
        """Pack file name, size, video and annotations of each image, in `image_ids` order."""
        class_of = {category: class_id for class_id, category in self.category_ids.items()}
        for index, image_id in enumerate(self.image_ids):
            image = read.images[image_id]
            usable = []
            for annotation in read.annotations.pop(image_id, ()):
                class_id = class_of.get(annotation["category_id"])
                if class_id is None:
                    kind = "annotation of a class that was not requested"
                    self.findings.add(NOTE, kind, read.names[annotation["category_id"]])
                    continue
                annotation = {**annotation, "class_id": class_id}
                if self._learn_boxes and "box_only" in annotation:
                    annotation["iscrowd"] = 0
                usable.append(annotation)
                if not annotation["iscrowd"]:
                    self.instances[class_id] += 1
                    self._has_instances[index] = True
            yield image.file_name, image.size, image.video_id, usable


def classes_with_instances(
    annotations_json: Path, image_folder: Path, *, learn_boxes: bool = False
) -> list[str]:
    """Return the names of the categories that have an instance, in category-id order.

    Boxes without a mask count as instances with `learn_boxes`.

    Raises:
        DatasetError: the file cannot be read, contradicts itself, or no category has one.
    """
    read = read_annotation_file(annotations_json, image_folder, places=EXAMPLES)
    if read.ambiguous:
        raise DatasetError(f"{annotations_json}: {read.ambiguous[0]}")
    used = {
        annotation["category_id"]
        for annotations in read.annotations.values()
        for annotation in annotations
        if not annotation["iscrowd"] or (learn_boxes and "box_only" in annotation)
    }
    if not used:
        raise DatasetError(
            f"{annotations_json} has no instance of any class; there is nothing to learn.\n"
            f"{format_findings(read.findings)}"
        )
    return [read.names[number] for number in sorted(used)]


def likely_name(name: str, known: list[str]) -> str | None:
    """Return the name in `known` that `name` was probably meant to be; None if none is close."""
    folded = {_fold(other): other for other in known}
    if _fold(name) in folded:
        return folded[_fold(name)]
    near = difflib.get_close_matches(_fold(name), folded, n=1, cutoff=0.7)
    return folded[near[0]] if near else None


def _fold(name: str) -> str:
    """Return a name without case, spaces and punctuation."""
    return "".join(c for c in name.casefold() if c.isalnum()) or name


def _box(
    annotation: Mapping[str, Any], corner: tuple[int, int], crop: np.ndarray, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the annotation's x1 y1 x2 y2, clipped to the image; without a box, the mask's."""
    if "bbox" in annotation:
        x, y, width, height = annotation["bbox"]
        x1, y1 = max(float(x), 0.0), max(float(y), 0.0)
        x2, y2 = min(float(x + width), float(size[1])), min(float(y + height), float(size[0]))
        if x2 > x1 and y2 > y1:
            return x1, y1, x2, y2
    return (
        *(float(corner[0]), float(corner[1])),
        *(float(corner[0] + crop.shape[1]), float(corner[1] + crop.shape[0])),
    )


def tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return the smallest x1 y1 x2 y2 (pixels, half-open) around the set part of (H, W) `mask`.

    An empty mask yields zeros.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
