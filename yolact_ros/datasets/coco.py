"""Annotated images in COCO's format, read without torch.

Format: https://cocodataset.org/#format-data (instances). Files of YouTube-VIS are read as the
frames of their videos.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolact_ros.datasets.masks import decode_segmentation, segmentation_fault
from yolact_ros.datasets.youtube_vis import frames_as_images, is_video_format
from yolact_ros.errors import DatasetError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One image and its instances; N may be 0.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        boxes: (N, 4) float32 x1 y1 x2 y2 in pixels of `image`.
        masks: (N, H, W) uint8, 0 or 1.
        class_ids: (N,) int64, 0-based.
        crowd: (N,) bool; such an instance covers a group, and is neither learnt nor counted.
        image_id: the image's id in its annotation file.
        file_name: the image's file, relative to the image folder.
        track_ids: (N,) int64, in a video the ids of the objects; empty for single images.
        passed_over: why images that should have come in its place cannot be used.
    """

    image: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    class_ids: np.ndarray
    crowd: np.ndarray
    image_id: int
    file_name: str
    track_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    passed_over: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)


class CocoDataset:
    """Images of a folder with the instances of one COCO annotation file.

    Attributes:
        annotations_path: the annotation file.
        classes: class names in the order of class ids.
        category_ids: class id to the file's category id; a class that the file does not know is
            absent.
        image_ids: ids of all images, in ascending order; position i is what `load(i)` reads.
        skipped: why annotations were left out, and how many for each reason.
    """

    def __init__(
        self,
        annotations_json: str | Path,
        image_folder: str | Path,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        """Read the annotations; images are read by `load`.

        Args:
            annotations_json: the annotation file.
            image_folder: where the `file_name` of each image is found.
            classes: names of the classes to keep, in class-id order; None keeps every category
                of the file, in the order of category ids. A file whose categories have no names
                (the authors' Pascal SBD) numbers them from 1 on in this order.

        Raises:
            DatasetError: the file is missing or is not COCO JSON, the folder is missing, or none
                of `classes` is a category of the file.
        """
        self.annotations_path = Path(annotations_json)
        self.image_folder = Path(image_folder)
        content = read_annotations(self.annotations_path)
        if not self.image_folder.is_dir():
            raise DatasetError(
                f"The image folder {self.image_folder} of {self.annotations_path} does not exist."
            )
        self.classes, self.category_ids = self._map_categories(content["categories"], classes)
        self.skipped: Counter[str] = Counter()
        try:
            self._images = {int(image["id"]): image for image in content["images"]}
            for image in self._images.values():
                image["file_name"]  # noqa: B018 - raises KeyError
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{self.annotations_path}: an entry of 'images' lacks a usable id or file_name."
            ) from error
        if len(self._images) < len(content["images"]):
            raise DatasetError(
                f"{self.annotations_path}: several images have the same id; it is not known which "
                "one an annotation belongs to."
            )
        self.image_ids = sorted(self._images)
        self._annotations = self._group_annotations(content["annotations"])
        if self.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.items())
            logger.warning("%s: annotations left out: %s", self.annotations_path, reasons)

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_path(self, index: int) -> Path:
        """File of image `index`."""
        return self.image_folder / self._images[self.image_ids[index]]["file_name"]

    def has_instances(self, index: int) -> bool:
        """Whether image `index` has an instance that is no crowd."""
        return any(not annotation.get("iscrowd", 0) for annotation in self.annotations(index))

    def check_files(self) -> None:
        """Look for all images at once, so that a long run does not find out late.

        Raises:
            DatasetError: images are missing; the message names the first ones and their number.
        """
        paths = (self.image_path(index) for index in range(len(self)))
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            raise DatasetError(
                f"{len(missing)} of {len(self)} images named in {self.annotations_path} are "
                f"missing: {', '.join(missing[:10])}{', ...' if len(missing) > 10 else ''}"
            )

    def load(self, index: int) -> Sample:
        """Read image `index` and its instances.

        Raises:
            DatasetError: the image is missing, cannot be decoded or has another size than the
                annotation file says.
        """
        image_id = self.image_ids[index]
        image = self.read_image(index)
        height, width = image.shape[:2]
        boxes, masks, class_ids, crowd, track_ids = [], [], [], [], []
        for annotation in self.annotations(index):
            mask = decode_segmentation(annotation["segmentation"], height, width)
            if mask is None or not mask.any():
                continue  # smaller than a pixel, or outside the image
            if "track_id" in annotation:
                track_ids.append(annotation["track_id"])
            boxes.append(_box(annotation, mask))
            masks.append(mask)
            class_ids.append(annotation["class_id"])
            crowd.append(bool(annotation.get("iscrowd", 0)))
        return Sample(
            image=image,
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
            masks=np.stack(masks) if masks else np.zeros((0, height, width), np.uint8),
            class_ids=np.asarray(class_ids, np.int64),
            crowd=np.asarray(crowd, bool),
            image_id=image_id,
            file_name=self._images[image_id]["file_name"],
            track_ids=np.asarray(track_ids, np.int64),
        )

    def videos(self) -> list[list[int]]:
        """Positions of the images of each video, in order of time; empty for single images."""
        frames: dict[Any, list[int]] = {}
        for index, image_id in enumerate(self.image_ids):
            image = self._images[image_id]
            if "video_id" in image:
                frames.setdefault(image["video_id"], []).append(index)
        return list(frames.values())

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """Usable annotations of image `index` as the file has them, each with its `class_id`."""
        return self._annotations.get(self.image_ids[index], [])

    def read_image(self, index: int) -> np.ndarray:
        """Read image `index` alone, (H, W, 3) uint8 BGR.

        Raises:
            DatasetError: see `load`.
        """
        path = self.image_path(index)
        if not path.is_file():
            raise DatasetError(f"The image {path} named in {self.annotations_path} is missing.")
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise DatasetError(f"The image {path} cannot be decoded; replace or remove it.")
        entry = self._images[self.image_ids[index]]
        expected = (entry.get("height", image.shape[0]), entry.get("width", image.shape[1]))
        if image.shape[:2] != expected:
            raise DatasetError(
                f"The image {path} is {image.shape[1]}x{image.shape[0]} pixels, but "
                f"{self.annotations_path} says {expected[1]}x{expected[0]}."
            )
        return image

    def _map_categories(
        self, categories: list[Mapping[str, Any]], classes: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], dict[int, int]]:
        try:
            given = {int(category["id"]): category.get("name") for category in categories}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{self.annotations_path}: an entry of 'categories' lacks a usable id."
            ) from error
        names = {}
        for number, name in given.items():
            names[number] = str(name or number)
            if name is None and classes and 1 <= number <= len(classes):
                names[number] = classes[number - 1]
        if classes is None:
            ordered = sorted(names)
            return tuple(names[i] for i in ordered), dict(enumerate(ordered))
        ids = {name: category_id for category_id, name in names.items()}
        mapped = {c: ids[name] for c, name in enumerate(classes) if name in ids}
        if not mapped:
            raise DatasetError(
                f"{self.annotations_path} has none of the classes {', '.join(classes)}; "
                f"its categories are: {', '.join(names.values()) or 'none'}."
            )
        return classes, mapped

    def _group_annotations(self, annotations: list[dict[str, Any]]) -> dict[int, list[dict]]:
        """Sort usable annotations by image; count the others in `skipped`."""
        class_of = {category: class_id for class_id, category in self.category_ids.items()}
        grouped: dict[int, list[dict]] = {}
        for annotation in annotations:
            fault = self._fault_of(annotation, class_of)
            if fault:
                self.skipped[fault] += 1
                continue
            entry = {**annotation, "class_id": class_of[annotation["category_id"]]}
            grouped.setdefault(annotation["image_id"], []).append(entry)
        return grouped

    def _fault_of(self, annotation: Any, class_of: Mapping[int, int]) -> str | None:
        if not isinstance(annotation, dict):
            return "not an object"
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if not isinstance(image_id, int) or image_id not in self._images:
            return "of an unknown image"
        if not isinstance(category_id, int) or category_id not in class_of:
            return "of another category"
        image = self._images[image_id]
        size = (image["height"], image["width"]) if {"height", "width"} <= image.keys() else None
        return segmentation_fault(annotation.get("segmentation"), size)


def read_annotations(path: Path) -> dict[str, Any]:
    """Read an annotation file of COCO's format, or of YouTube-VIS's, which is turned into it.

    Returns:
        At least `images`, `annotations` and `categories`; their entries are not checked.

    Raises:
        DatasetError: the file cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"The annotation file {path} cannot be read: {error}.") from error
    except ValueError as error:
        raise DatasetError(f"The annotation file {path} is not JSON: {error}.") from error
    if isinstance(content, dict) and is_video_format(content):
        try:
            content = frames_as_images(content)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
    keys = ("images", "annotations", "categories")
    lists = content if isinstance(content, dict) else {}
    missing = [key for key in keys if not isinstance(lists.get(key), list)]
    if missing:
        raise DatasetError(
            f"The annotation file {path} lacks a list of {', '.join(missing)}; expected COCO's "
            "instances."
        )
    return content


def _box(annotation: Mapping[str, Any], mask: np.ndarray) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 of the annotation, clipped to the image; of its mask where it has no box."""
    height, width = mask.shape
    box = annotation.get("bbox")
    if isinstance(box, (list, tuple)) and len(box) == 4 and np.isfinite(box).all():
        x1, y1 = max(float(box[0]), 0.0), max(float(box[1]), 0.0)
        x2 = min(float(box[0]) + float(box[2]), float(width))
        y2 = min(float(box[1]) + float(box[3]), float(height))
        if x2 > x1 and y2 > y1:
            return x1, y1, x2, y2
    return tight_box(mask)


def tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The smallest x1 y1 x2 y2 (pixels, half-open) around the non-zero part of (H, W) `mask`.

    A mask without any pixel gives zeros.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
