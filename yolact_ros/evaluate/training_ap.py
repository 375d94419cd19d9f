"""AP of a network during training, through the same pipeline as `yolact evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from yolact_ros.config import PostprocessConfig
from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.coco_tables import CocoTables
from yolact_ros.runtime.backends.pytorch import TorchBackend
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.segmenter import Segmenter

# Default of `yolact evaluate`.
POSTPROCESS = PostprocessConfig(score_threshold=0.05)


def detect(
    model: Any, dataset: CocoDataset, positions: Sequence[int], *, show: bool
) -> CocoTables:
    """Detect on images of a data set.

    Args:
        model: a `model.yolact.Yolact` in evaluation mode, on any device.
        dataset: annotations with the model's classes.
        positions: positions of the images; unreadable images are skipped.
        show: whether to show a progress bar.
    """
    backend = TorchBackend(model, device=str(next(model.parameters()).device))
    description = ModelDescription(model.config, "on_demand", 1000, identity="")
    segmenter = Segmenter(backend, description, POSTPROCESS)
    tables = CocoTables(dataset.category_ids, dataset.classes)
    for index in tqdm(positions, desc="detect", unit="image", leave=False, disable=not show):
        try:
            image = dataset.read_image(index)
        except DatasetError:  # already logged while computing losses
            continue
        image_id = dataset.image_ids[index]
        tables.add_image(image_id, (image.shape[0], image.shape[1]))
        tables.add_truth(image_id, dataset.annotations(index))
        tables.add_found(image_id, segmenter.segment(image))
    return tables


def average_precision(parts: Sequence[CocoTables]) -> dict[str, float | None]:
    """Return the AP in [0, 1] of all parts, which are merged into the first one."""
    whole, *others = parts
    for part in others:
        whole.images.update(part.images)
        _append(whole.truth, part.truth)
        for kind, rows in part.found.items():
            _append(whole.found[kind], rows)
    box, mask = whole.score("bbox").summary, whole.score("segm").summary
    return {"box_ap": box["ap"], "mask_ap": mask["ap"], "mask_ap50": mask["ap50"]}


def _append(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    """Append rows with consecutive ids, which pycocotools requires."""
    rows += [{**row, "id": number} for number, row in enumerate(more, len(rows) + 1)]
