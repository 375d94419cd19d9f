"""Draw many annotated images of a data set on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.tiles import TEXT_SCALE, fitting_scale, in_rows, make_tile, stack_rows
from yolact_ros.runtime.output.draw import FONT, MASK_OPACITY, class_colour

TILE = (240, 320)  # height, width
COLUMNS = 6
CROWD_COLOUR = (128, 128, 128)


def draw_contact_sheet(dataset: CocoDataset, *, count: int = 24, seed: int = 0) -> np.ndarray:
    """Draw annotated images: first a selection that shows every class, then others.

    Images that cannot be read are skipped.

    Args:
        dataset: data set to choose from.
        count: maximum number of images.
        seed: seed of the selection.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    tiles: list[np.ndarray] = []
    for index in _choose(dataset, seed):
        if len(tiles) == count:
            break
        try:
            sample = dataset.load(index)
        except DatasetError:
            continue
        caption = f"{Path(sample.file_name).name}: {len(sample)}"
        tiles.append(make_tile(_draw_sample(sample, dataset.classes), caption, TILE))
    return stack_rows(in_rows(tiles, COLUMNS))


def _draw_sample(sample: Sample, class_names: Sequence[str]) -> np.ndarray:
    """Draw the instances on their image at the size of a tile, so that text stays sharp."""
    scale = fitting_scale(sample.image, TILE)
    height, width = (max(1, int(side * scale)) for side in sample.image.shape[:2])
    canvas = cv2.resize(sample.image, (width, height), interpolation=cv2.INTER_AREA)
    labels = []
    for i in range(len(sample)):
        class_id = int(sample.class_ids[i])
        colour = CROWD_COLOUR if sample.crowd[i] else class_colour(class_id)
        mask = cv2.resize(sample.masks[i], (width, height), interpolation=cv2.INTER_NEAREST)
        tinted = cv2.addWeighted(
            canvas, 1 - MASK_OPACITY, np.full_like(canvas, colour), MASK_OPACITY, 0
        )
        cv2.copyTo(tinted, mask, canvas)
        x1, y1, x2, y2 = np.rint(sample.boxes[i] * scale).astype(int).tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1)
        labels.append((class_names[class_id], (x1 + 2, max(y1 - 3, 10)), colour))
    for text, origin, colour in labels:
        for ink, line in (((0, 0, 0), 3), (colour, 1)):  # with a dark outline
            cv2.putText(canvas, text, origin, FONT, TEXT_SCALE, ink, line, cv2.LINE_AA)
    return canvas


def _choose(dataset: CocoDataset, seed: int) -> list[int]:
    """Return the positions of all images: those that show a new class first, empty ones last."""
    seen: set[int] = set()
    ranked: list[tuple[int, int]] = []
    for index in np.random.default_rng(seed).permutation(len(dataset)).tolist():
        classes = {annotation["class_id"] for annotation in dataset.annotations(index)}
        ranked.append((0 if classes - seen else 1 if classes else 2, index))
        seen |= classes
    return [index for _, index in sorted(ranked, key=lambda pair: pair[0])]
