"""Compute the COCO average precision of results of `yolact predict --json` or `yolact batch`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.datasets.masks import NO_PIXEL, segmentation_fault, segmentation_rle
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.coco_map import Evaluation
from yolact_ros.evaluate.coco_tables import CocoTables
from yolact_ros.files import parse_json, read_file


def evaluate_results(path: Path, dataset: CocoDataset, *, limit: int | None = None) -> Evaluation:
    """Compare the instances of a results file with annotations, without reading any image.

    An entry matches an image if the name of one is the end of the other's name.

    Args:
        path: results.
        dataset: annotations; instances of classes that the file lacks are ignored.
        limit: number of images to evaluate, in order of their ids.

    Raises:
        DatasetError: the results cannot be read, or have no entry or several for an image.
    """
    entries: dict[str, list[Mapping[str, Any]]] = {}
    content = parse_json(read_file(path), where=path)
    if not isinstance(content, list):
        raise DatasetError(f"{path} is not a list; expected output of `yolact predict --json`.")
    for index, entry in enumerate(content):
        if fault := _fault(entry):
            raise DatasetError(
                f"Entry {index} of {path} {fault}; expected what `yolact predict --json` writes."
            )
        entries.setdefault(PurePosixPath(entry["image"]).name, []).append(entry)
    class_ids = {name: class_id for class_id, name in enumerate(dataset.classes)}
    tables = CocoTables(dataset.category_ids, dataset.classes)
    names = [dataset.file_name(index) for index in range(len(dataset))][:limit]
    found = [_entries_of(name, entries) for name in names]
    wrong = [name for name, matching in zip(names, found, strict=True) if len(matching) != 1]
    if wrong or not names:
        raise DatasetError(
            f"{path} does not have exactly one entry for {len(wrong)} of {len(names)} images of "
            f"{dataset.annotations_path}: {', '.join(wrong[:10])}. Segment all of the images in "
            "one run."
        )
    for index, (entry,) in enumerate(found):
        image_id = dataset.image_ids[index]
        size = entry["height"], entry["width"]
        tables.add_image(image_id, size, dataset.annotations(index))
        for instance in entry["instances"]:
            tables.add_instance(
                image_id,
                class_ids.get(instance["class_name"], -1),
                instance["box"],
                (instance["score"], instance["mask_score"]),
                segmentation_rle(instance["segmentation"], *size),
            )
    return Evaluation(tables, tables.score("bbox"), tables.score("segm"), dataset.classes, {})


def _entries_of(
    name: str, entries: Mapping[str, list[Mapping[str, Any]]]
) -> list[Mapping[str, Any]]:
    parts = PurePosixPath(name).parts
    matching = []
    for entry in entries.get(parts[-1] if parts else "", ()):
        others = PurePosixPath(entry["image"]).parts
        length = min(len(parts), len(others))
        if parts[-length:] == others[-length:]:
            matching.append(entry)
    return matching


def _fault(entry: Any) -> str | None:
    """Return why an entry cannot be used; None if it can."""
    try:
        size = entry["height"], entry["width"]
        if not (isinstance(entry["image"], str) and all(type(n) is int and n > 0 for n in size)):
            return "has no name, or no size"
        for instance in entry["instances"]:
            numbers = [*instance["box"], instance["score"], instance["mask_score"]]
            if len(numbers) != 6 or not all(math.isfinite(number) for number in numbers):
                return "has a box or a score that is not a number"
            hash(instance["class_name"])
            fault = segmentation_fault(instance["segmentation"], size)
            if fault and fault != NO_PIXEL:
                return f"has an instance {fault}"
    except (KeyError, TypeError, OverflowError) as error:
        return f"is not complete ({type(error).__name__}: {error})"
    return None
