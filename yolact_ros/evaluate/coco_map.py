"""COCO's average precision of boxes and masks, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from yolact_ros.errors import DatasetError
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.rle import encode_rle
from yolact_ros.train.dataset import CocoDataset
from yolact_ros.train.segmentation import segmentation_rle

# COCOeval's twelve numbers, in its order: AP over IoU 0.50:0.95, at 0.50 and 0.75, by area; AR by
# detections of an image, by area.
SUMMARY = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass(frozen=True)
class ClassScores:
    """AP of one class over IoU 0.50:0.95, in [0, 1]; None without a true instance.

    Attributes:
        instances: true instances, crowds left out.
        box_ap, mask_ap: of boxes by class score, of masks by mask score.
    """

    instances: int
    box_ap: float | None
    mask_ap: float | None


@dataclass(frozen=True)
class CocoScores:
    """What COCOeval says, in [0, 1].

    Attributes:
        box, mask: the numbers named in `SUMMARY`; None where there is nothing to find.
        classes: by class name.
        images: how many were evaluated.
        detections: how many were made.
        milliseconds: mean time of each stage.
    """

    box: Mapping[str, float | None]
    mask: Mapping[str, float | None]
    classes: Mapping[str, ClassScores]
    images: int
    detections: int
    milliseconds: Mapping[str, float]


def evaluate_coco(
    segment: Callable[[np.ndarray], Detections],
    dataset: CocoDataset,
    *,
    limit: int | None = None,
) -> CocoScores:
    """Segment the images of a data set and compare with their annotations.

    All images count, those without annotations too. Boxes are ranked by class score, masks by
    mask score, and a detection whose box is empty is none, as in dbolya/yolact `eval.py`.

    Args:
        segment: `Segmenter.segment`.
        dataset: annotations with the model's classes; detections of classes that the file does
            not know are left out.
        limit: evaluate only so many images, the first ones by id.

    Raises:
        DatasetError: images are missing or cannot be read, or there are none.
    """
    dataset.check_files()
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if not count:
        raise DatasetError(f"{dataset.annotations_path} has no images to evaluate on.")
    tables = _Tables(sorted(dataset.category_ids), dataset.classes)
    timings: dict[str, list[float]] = {}
    for index in tqdm(range(count), desc="evaluate", unit="image", mininterval=0.5):
        image = dataset.read_image(index)
        found = segment(image)
        image_id = dataset.image_ids[index]
        tables.add_image(image_id, (image.shape[0], image.shape[1]))
        tables.add_truth(image_id, dataset.annotations(index))
        tables.add_found(image_id, found)
        for stage, value in found.timings.items():
            timings.setdefault(stage, []).append(value)
    box, box_of_class = tables.score("bbox")
    mask, mask_of_class = tables.score("segm")
    classes = {
        dataset.classes[c]: ClassScores(tables.count(c), box_of_class[c], mask_of_class[c])
        for c in tables.class_ids
    }
    means = {stage: float(np.mean(values)) for stage, values in timings.items()}
    return CocoScores(box, mask, classes, count, len(tables.found["bbox"]), means)


class _Tables:
    """Images, true instances and detections in pycocotools' form; category ids are class ids."""

    def __init__(self, class_ids: Iterable[int], names: tuple[str, ...]) -> None:
        self.class_ids = list(class_ids)
        self.images: dict[int, dict[str, Any]] = {}
        self.truth: list[dict[str, Any]] = []
        self.found: dict[str, list[dict[str, Any]]] = {"bbox": [], "segm": []}
        self._categories = [{"id": c, "name": names[c]} for c in self.class_ids]

    def add_image(self, image_id: int, size: tuple[int, int]) -> None:
        self.images[image_id] = {"id": image_id, "height": size[0], "width": size[1]}

    def add_truth(self, image_id: int, annotations: Iterable[Mapping[str, Any]]) -> None:
        """Add the annotations of one image; box and area come from the mask where they lack."""
        image = self.images[image_id]
        for annotation in annotations:
            rle = segmentation_rle(annotation["segmentation"], image["height"], image["width"])
            box, area = annotation.get("bbox"), annotation.get("area")
            self.truth.append(
                {
                    "id": len(self.truth) + 1,
                    "image_id": image_id,
                    "category_id": annotation["class_id"],
                    "segmentation": rle,
                    "bbox": rle_masks.toBbox(rle).tolist() if box is None else box,
                    "area": float(rle_masks.area(rle)) if area is None else area,
                    "iscrowd": int(bool(annotation.get("iscrowd", 0))),
                }
            )

    def add_found(self, image_id: int, found: Detections) -> None:
        """Add the detections of one image, with a score of their own for boxes and for masks."""
        known = set(self.class_ids)
        for i in range(len(found)):
            class_id = int(found.class_ids[i])
            if class_id not in known:
                continue
            x1, y1, x2, y2 = (float(value) for value in found.boxes[i])
            if x1 >= x2 or y1 >= y2:
                continue
            common = {
                "id": len(self.found["bbox"]) + 1,
                "image_id": image_id,
                "category_id": class_id,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": 0,
            }
            box_area, mask_area = (x2 - x1) * (y2 - y1), float(found.masks[i].sum())
            rle = encode_rle(found.masks[i], found.mask_rois[i], found.image_size)
            scores = float(found.scores[i]), float(found.mask_scores[i])
            self.found["bbox"].append({**common, "area": box_area, "score": scores[0]})
            self.found["segm"].append(
                {**common, "area": mask_area, "score": scores[1], "segmentation": rle}
            )

    def count(self, class_id: int) -> int:
        """True instances of a class that are no crowds."""
        return sum(t["category_id"] == class_id and not t["iscrowd"] for t in self.truth)

    def score(self, kind: str) -> tuple[dict[str, float | None], dict[int, float | None]]:
        """COCOeval's summary for `bbox` or `segm`, and the AP of each class."""
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress
            evaluation = COCOeval(self._coco(self.truth), self._coco(self.found[kind]), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        summary = {
            name: _known(float(value))
            for name, value in zip(SUMMARY, evaluation.stats, strict=True)
        }
        # IoU thresholds, recalls, classes, areas (0: all), detections of an image (-1: most).
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        of_class = {}
        for position, class_id in enumerate(evaluation.params.catIds):
            values = precision[:, :, position]
            of_class[class_id] = _known(float(values.mean())) if (values > -1).all() else None
        return summary, of_class

    def _coco(self, annotations: list[dict[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": list(self.images.values()),
            "categories": self._categories,
            "annotations": annotations,
        }
        coco.createIndex()
        return coco


def _known(value: float) -> float | None:
    """COCOeval writes -1 for what cannot be computed."""
    return None if value < 0 else value
