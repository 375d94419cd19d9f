"""Collect images, true instances and detections for pycocotools, and evaluate them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolact_ros.datasets.masks import segmentation_rle
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.entries import encode_rle

# The twelve numbers of COCOeval in its order: AP over IoU 0.50:0.95, at 0.50, at 0.75, by area; AR
# by detections per image, by area.
SUMMARY = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


@dataclass(frozen=True, eq=False)
class Scores:
    """Holds the results of COCOeval for boxes or for masks, in [0, 1].

    Attributes:
        summary: the numbers named in `SUMMARY`; None if there is nothing to find.
        class_ap: AP over IoU 0.50:0.95 by class id; None if the class has no true instance.
        class_ap50: AP at IoU 0.50 by class id.
        precision: (10, 101, C) float64, by IoU threshold 0.50:0.95, recall 0:1 and class in the
            order of `class_ap`; -1 for a class without a true instance.
    """

    summary: Mapping[str, float | None]
    class_ap: Mapping[int, float | None]
    class_ap50: Mapping[int, float | None]
    precision: np.ndarray


class CocoTables:
    """Collects true instances and detections of images; category ids are class ids.

    Attributes:
        class_ids: classes that are evaluated.
        images: COCO image entries by image id.
        truth: COCO annotations; crowds have `iscrowd` 1.
        found: detections as boxes (`bbox`) and as masks (`segm`), each with its own score, in two
            parallel lists.
    """

    def __init__(self, class_ids: Iterable[int], names: Sequence[str]) -> None:
        self.class_ids = sorted(class_ids)
        self.images: dict[int, dict[str, Any]] = {}
        self.truth: list[dict[str, Any]] = []
        self.found: dict[str, list[dict[str, Any]]] = {"bbox": [], "segm": []}
        self._categories = [{"id": c, "name": names[c]} for c in self.class_ids]

    def alike(self) -> CocoTables:
        """Return tables for other detections, which share the images and true instances."""
        tables = CocoTables((), ())
        tables.class_ids, tables._categories = self.class_ids, self._categories
        tables.images, tables.truth = self.images, self.truth
        return tables

    def add_image(
        self, image_id: int, size: Sequence[int], annotations: Iterable[Mapping[str, Any]]
    ) -> None:
        """Add an image and its annotations; missing boxes and areas are computed from the mask.

        Args:
            image_id: id of the image.
            size: its height and width in pixels, as the first of any other values.
            annotations: its true instances, see `CocoDataset.annotations`.
        """
        height, width = size[:2]
        self.images[image_id] = {"id": image_id, "height": height, "width": width}
        for annotation in annotations:
            rle = segmentation_rle(annotation["segmentation"], height, width)
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
        """Add the detections of one image, see `add_instance`."""
        for i in range(len(found)):
            self.add_instance(
                image_id,
                int(found.class_ids[i]),
                [float(value) for value in found.boxes[i]],
                (float(found.scores[i]), float(found.mask_scores[i])),
                encode_rle(found.masks[i], found.mask_rois[i], found.image_size),
            )

    def add_instance(
        self,
        image_id: int,
        class_id: int,
        box: Sequence[float],
        scores: tuple[float, float],
        rle: Mapping[str, Any],
    ) -> None:
        """Add one detection.

        Detections of other classes or with an empty box are ignored, as in dbolya/yolact
        `eval.py`.

        Args:
            image_id: id of its image.
            class_id: class of the detection.
            box: x1 y1 x2 y2 in pixels.
            scores: class score and mask score.
            rle: its mask in COCO's run lengths.
        """
        x1, y1, x2, y2 = box
        if class_id not in self.class_ids or x1 >= x2 or y1 >= y2:
            return
        common = {
            "id": len(self.found["bbox"]) + 1,
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": 0,
        }
        self.found["bbox"].append({**common, "area": (x2 - x1) * (y2 - y1), "score": scores[0]})
        mask = {"area": float(rle_masks.area(rle)), "score": scores[1], "segmentation": rle}
        self.found["segm"].append({**common, **mask})

    def count(self, class_id: int) -> int:
        """Count the true instances of a class, without crowds."""
        return sum(t["category_id"] == class_id and not t["iscrowd"] for t in self.truth)

    def score(self, kind: str, image_ids: Collection[int] | None = None) -> Scores:
        """Run COCOeval.

        Args:
            kind: `bbox` or `segm`.
            image_ids: ids of the images to evaluate; all by default.
        """
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            evaluation = COCOeval(self._coco(self.truth), self._coco(self.found[kind]), kind)
            if image_ids is not None:
                evaluation.params.imgIds = sorted(image_ids)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # IoU thresholds, recalls, classes, areas (0: all), detections per image (-1: maximum).
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        classes = list(enumerate(evaluation.params.catIds))
        return Scores(
            summary={
                name: _known(float(value))
                for name, value in zip(SUMMARY, evaluation.stats, strict=True)
            },
            class_ap={c: _known(float(precision[:, :, i].mean())) for i, c in classes},
            class_ap50={c: _known(float(precision[0, :, i].mean())) for i, c in classes},
            precision=precision,
        )

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
    """Convert -1, which COCOeval writes for undefined values, to None."""
    return None if value < 0 else value
