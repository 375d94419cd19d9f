"""COCO's average precision of boxes and masks, computed by pycocotools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.coco_tables import CocoTables
from yolact_ros.runtime.detections import Detections
from yolact_ros.train.dataset import CocoDataset


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
        box, mask: the numbers named in `coco_tables.SUMMARY`; None where there is nothing to find.
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
    tables = CocoTables(dataset.category_ids, dataset.classes)
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
    box, mask = tables.score("bbox"), tables.score("segm")
    classes = {
        dataset.classes[c]: ClassScores(tables.count(c), box.class_ap[c], mask.class_ap[c])
        for c in tables.class_ids
    }
    means = {stage: float(np.mean(values)) for stage, values in timings.items()}
    return CocoScores(box.summary, mask.summary, classes, count, len(tables.found["bbox"]), means)
