"""Compute the COCO average precision of boxes and masks with pycocotools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.coco_tables import CocoTables, Scores
from yolact_ros.runtime.detections import Detections


@dataclass(frozen=True)
class ClassScores:
    """Holds the AP of one class, in [0, 1]; None if it has no true instance.

    Attributes:
        instances: number of true instances without crowds.
        box_ap, mask_ap: AP over IoU 0.50:0.95 of boxes by class score and of masks by mask score.
        box_ap50, mask_ap50: AP at IoU 0.50.
    """

    instances: int
    box_ap: float | None
    mask_ap: float | None
    box_ap50: float | None
    mask_ap50: float | None


@dataclass(frozen=True)
class CocoScores:
    """Holds the results of COCOeval, in [0, 1].

    Attributes:
        box, mask: the numbers named in `coco_tables.SUMMARY`; None if there is nothing to find.
        classes: results by class name.
        images: number of images.
        detections: number of detections.
        milliseconds: mean time per image of each stage.
    """

    box: Mapping[str, float | None]
    mask: Mapping[str, float | None]
    classes: Mapping[str, ClassScores]
    images: int
    detections: int
    milliseconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Holds the detections on a data set and the results of COCOeval.

    Attributes:
        tables: true instances and detections.
        box, mask: results of COCOeval.
        classes: class names by class id.
        milliseconds: mean time per image of each stage.
    """

    tables: CocoTables
    box: Scores
    mask: Scores
    classes: Sequence[str]
    milliseconds: Mapping[str, float]

    @property
    def scores(self) -> CocoScores:
        """Return the numbers without the tables."""
        box, mask = self.box, self.mask
        classes = {
            self.classes[c]: ClassScores(
                instances=self.tables.count(c),
                box_ap=box.class_ap[c],
                mask_ap=mask.class_ap[c],
                box_ap50=box.class_ap50[c],
                mask_ap50=mask.class_ap50[c],
            )
            for c in self.tables.class_ids
        }
        return CocoScores(
            box=box.summary,
            mask=mask.summary,
            classes=classes,
            images=len(self.tables.images),
            detections=len(self.tables.found["bbox"]),
            milliseconds=self.milliseconds,
        )


def evaluate_dataset(
    segment: Callable[[np.ndarray], Detections], dataset: CocoDataset, *, limit: int | None = None
) -> Evaluation:
    """Segment the images of a data set and compare the detections with the annotations.

    Images without annotations count as well. Boxes are ranked by class score and masks by mask
    score; detections with an empty box are ignored, as in dbolya/yolact `eval.py`.

    Args:
        segment: `Segmenter.segment`.
        dataset: annotations with the model's classes; detections of classes that the file lacks
            are ignored.
        limit: number of images to evaluate, in order of their ids.

    Raises:
        DatasetError: images are missing or cannot be read, or there are none.
    """
    dataset.check_files()
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if not count:
        raise DatasetError(f"{dataset.annotations_path} has no images to evaluate on.")
    tables = CocoTables(dataset.category_ids, dataset.classes)
    timings: dict[str, list[float]] = {}
    for index in tqdm(range(count), desc="evaluate", unit="image", mininterval=0.5):
        image = dataset.read_image(index)
        found = segment(image)
        image_id = dataset.image_ids[index]
        tables.add_image(image_id, image.shape, dataset.annotations(index))
        tables.add_found(image_id, found)
        for stage, value in found.timings.items():
            timings.setdefault(stage, []).append(value)
    means = {stage: float(np.mean(values)) for stage, values in timings.items()}
    box, mask = tables.score("bbox"), tables.score("segm")
    return Evaluation(tables, box, mask, dataset.classes, means)
