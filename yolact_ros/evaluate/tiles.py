"""Arrange small images with captions on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from yolact_ros.runtime.output.draw import FONT

GAP = 6  # pixels between tiles
LABEL = 18  # height of the line of text above a tile
PAPER = 32  # grey level
TEXT = (225, 225, 225)
TEXT_SCALE = 0.42


def make_tile(picture: np.ndarray, caption: str, size: tuple[int, int]) -> np.ndarray:
    """Fit an image into a tile below a line of text, keeping its aspect ratio.

    Args:
        picture: (H, W, 3) uint8 BGR of any size.
        caption: text, which is shortened to the width of the tile.
        size: (height, width) of the tile without its caption.

    Returns:
        (LABEL + height, width, 3) uint8 BGR.
    """
    scale = fitting_scale(picture, size)
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    tile = np.full((LABEL + size[0], size[1], 3), PAPER, np.uint8)
    y, x = LABEL + (size[0] - height) // 2, (size[1] - width) // 2
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    tile[y : y + height, x : x + width] = cv2.resize(
        picture, (width, height), interpolation=method
    )
    while caption and cv2.getTextSize(caption, FONT, TEXT_SCALE, 1)[0][0] > size[1] - 2:
        caption = f"{caption.removesuffix('...')[:-1]}..." if len(caption) > 4 else ""
    cv2.putText(tile, caption, (2, LABEL - 5), FONT, TEXT_SCALE, TEXT, 1, cv2.LINE_AA)
    return tile


def fitting_scale(picture: np.ndarray, size: tuple[int, int]) -> float:
    """Return the factor that makes an image fit into (height, width) pixels."""
    return min(size[0] / picture.shape[0], size[1] / picture.shape[1])


def in_rows(tiles: Sequence[np.ndarray], columns: int) -> list[Sequence[np.ndarray]]:
    """Split tiles into rows."""
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def stack_rows(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Arrange rows of equal tiles on one sheet.

    Args:
        rows: (H, W, 3) uint8 BGR tiles; rows may differ in length, and there may be none.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    height, width = rows[0][0].shape[:2] if rows else (0, 0)
    columns = max(map(len, rows), default=0)
    size = GAP + len(rows) * (height + GAP), GAP + columns * (width + GAP)
    sheet = np.full((*size, 3), PAPER, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = GAP + i * (height + GAP), GAP + j * (width + GAP)
            sheet[y : y + height, x : x + width] = tile
    return sheet
