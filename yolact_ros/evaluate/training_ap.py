"""Compute AP during training, through the same pipeline as `yolact evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from yolact_ros.config import PostprocessConfig
from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.coco_tables import CocoTables
from yolact_ros.runtime.backends.pytorch import TorchBackend
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.output.draw import draw_detections
from yolact_ros.runtime.segmenter import Segmenter

# Default of `yolact evaluate`.
POSTPROCESS = PostprocessConfig(score_threshold=0.05)


PICTURES = 4
DRAWN_SCORE = PostprocessConfig().score_threshold


@dataclass(frozen=True, eq=False)
class Detected:
    """Holds the detections of one process on its validation images.

    Attributes:
        tables: true instances and detections.
        classes: class names by class id.
        pictures: the first few images, (H, W, 3) uint8 BGR, with their detections, by file name.
    """

    tables: CocoTables
    classes: Sequence[str]
    pictures: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class TrainingScore:
    """Holds the results of a validation.

    Attributes:
        values: box AP, mask AP, and mask AP at IoU 0.50, in [0, 1]; None without a true instance.
        curves: by class, the precision of masks at IoU 0.50, (101,) at the recalls 0, 0.01 .. 1,
            and the number of true instances.
        pictures: those of the first process.
    """

    values: Mapping[str, float | None]
    curves: Mapping[str, tuple[np.ndarray, int]]
    pictures: Mapping[str, np.ndarray]


def detect(model: Any, dataset: CocoDataset, positions: Sequence[int], *, show: bool) -> Detected:
    """Detect the instances in images of a data set.

    Args:
        model: a `model.yolact.Yolact` in evaluation mode, on any device.
        dataset: annotations with the model's classes.
        positions: positions of the images; unreadable images are skipped.
        show: whether to show a progress bar.
    """
    backend = TorchBackend(model, device=str(next(model.parameters()).device))
    description = ModelDescription(model.config, "on_demand", 1000)
    segmenter = Segmenter(backend, description, POSTPROCESS)
    tables = CocoTables(dataset.category_ids, dataset.classes)
    pictures: dict[str, np.ndarray] = {}
    for index in tqdm(positions, desc="detect", unit="image", leave=False, disable=not show):
        try:
            image = dataset.read_image(index)
        except DatasetError:  # already logged while computing losses
            continue
        image_id = dataset.image_ids[index]
        tables.add_image(image_id, image.shape, dataset.annotations(index))
        found = segmenter.segment(image)
        tables.add_found(image_id, found)
        if len(pictures) < PICTURES:
            sure = found[found.scores >= DRAWN_SCORE]
            name = dataset.image_path(index).name
            pictures[name] = draw_detections(image, sure, dataset.classes)
    return Detected(tables, dataset.classes, pictures)


def score(parts: Sequence[Detected]) -> TrainingScore:
    """Score the detections of all processes, after merging them into those of the first one."""
    whole = parts[0].tables
    for part in (other.tables for other in parts[1:]):
        whole.images.update(part.images)
        _append(whole.truth, part.truth)
        for kind, rows in part.found.items():
            _append(whole.found[kind], rows)
    box, masks = whole.score("bbox").summary, whole.score("segm")
    values = {
        "box_ap": box["ap"],
        "mask_ap": masks.summary["ap"],
        "mask_ap50": masks.summary["ap50"],
    }
    curves = {
        parts[0].classes[c]: (masks.precision[0, :, column], whole.count(c))
        for column, c in enumerate(masks.class_ap)
        if whole.count(c)
    }
    return TrainingScore(values, curves, parts[0].pictures)


def _append(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    """Append rows with consecutive ids, which pycocotools requires."""
    rows += [{**row, "id": number} for number, row in enumerate(more, len(rows) + 1)]
