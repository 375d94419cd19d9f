"""Arrange many small annotated pictures on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError
from yolact_ros.runtime.output.draw import FONT, MASK_OPACITY, class_colour

TILE = (240, 320)  # height, width
GAP = 6
PAPER = 32  # grey level between the tiles
CAPTION = 18  # height of the line of text below a tile
TEXT_SCALE = 0.42


def make_sheet(
    tiles: Sequence[tuple[np.ndarray, str]], *, columns: int = 6, tile: tuple[int, int] = TILE
) -> np.ndarray:
    """Arrange pictures in rows, each with a line of text below it.

    Args:
        tiles: (H, W, 3) uint8 BGR images of any size with their captions; may be empty.
        columns: maximum number of pictures per row.
        tile: (height, width) to which larger pictures are shrunk.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    columns = max(1, min(columns, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / columns))
    step = tile[0] + CAPTION + GAP, tile[1] + GAP
    sheet = np.full((rows * step[0] + GAP, columns * step[1] + GAP, 3), PAPER, np.uint8)
    for number, (image, caption) in enumerate(tiles):
        top, left = GAP + number // columns * step[0], GAP + number % columns * step[1]
        small = _shrink(image, _fitting_scale(image, tile))
        height, width = small.shape[:2]
        y, x = top + (tile[0] - height) // 2, left + (tile[1] - width) // 2
        sheet[y : y + height, x : x + width] = small
        write_on(sheet, _shorten(caption, tile[1]), (left + 2, top + tile[0] + CAPTION - 5))
    return sheet


def draw_sample(sample: Sample, class_names: Sequence[str], *, scale: float = 1.0) -> np.ndarray:
    """Draw the annotated instances on their image: masks, boxes, class names; crowds in grey.

    Args:
        sample: sample at its original size.
        class_names: names by class id.
        scale: factor by which image and masks are shrunk first, so that lines and text stay sharp.

    Returns:
        A new (H, W, 3) uint8 BGR image.
    """
    canvas = _shrink(sample.image, scale).copy()
    size = canvas.shape[1], canvas.shape[0]
    labels = []
    for i in range(len(sample)):
        class_id = int(sample.class_ids[i])
        colour = (128, 128, 128) if sample.crowd[i] else class_colour(class_id)
        mask = cv2.resize(sample.masks[i], size, interpolation=cv2.INTER_NEAREST)
        inside = mask.astype(bool)
        tinted = canvas[inside] * (1 - MASK_OPACITY) + np.array(colour, np.float32) * MASK_OPACITY
        canvas[inside] = np.rint(tinted).astype(np.uint8)
        x1, y1, x2, y2 = np.rint(sample.boxes[i] * scale).astype(int).tolist()
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1)
        labels.append((class_names[class_id], (x1 + 2, max(y1 - 3, 10)), colour))
    for text, origin, colour in labels:
        write_on(canvas, text, origin, colour=colour)
    return canvas


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
    tiles: list[tuple[np.ndarray, str]] = []
    for index in _choose(dataset, seed):
        if len(tiles) == count:
            break
        try:
            sample = dataset.load(index)
        except DatasetError:
            continue
        drawn = draw_sample(sample, dataset.classes, scale=_fitting_scale(sample.image, TILE))
        tiles.append((drawn, f"{Path(sample.file_name).name}: {len(sample)}"))
    return make_sheet(tiles)


def write_on(
    canvas: np.ndarray,
    text: str,
    origin: tuple[int, int],
    *,
    colour: tuple[int, int, int] = (225, 225, 225),
) -> None:
    """Write coloured text with a dark outline on a picture, in place; `origin` is x y."""
    cv2.putText(canvas, text, origin, FONT, TEXT_SCALE, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(canvas, text, origin, FONT, TEXT_SCALE, colour, 1, cv2.LINE_AA)


def _choose(dataset: CocoDataset, seed: int) -> list[int]:
    """Return the positions of all images; those that show a new class come first."""
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    seen: set[int] = set()
    first: list[int] = []
    full: list[int] = []
    empty: list[int] = []
    for index in order:
        classes = {annotation["class_id"] for annotation in dataset.annotations(index)}
        if classes - seen:
            first.append(index)
            seen |= classes
        else:
            (full if classes else empty).append(index)
    return first + full + empty


def _fitting_scale(image: np.ndarray, tile: tuple[int, int]) -> float:
    return min(tile[0] / image.shape[0], tile[1] / image.shape[1], 1.0)


def _shrink(image: np.ndarray, scale: float) -> np.ndarray:
    size = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _shorten(text: str, width: int) -> str:
    """Shorten `text` to `width` pixels."""
    cut = text
    while cut and cv2.getTextSize(cut, FONT, TEXT_SCALE, 1)[0][0] > width:
        cut = f"{cut.removesuffix('...')[:-1]}..." if len(cut) > 4 else ""
    return cut
