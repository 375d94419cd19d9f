"""Image files of a data set."""

from __future__ import annotations

from pathlib import Path

import cv2

from yolact_ros.errors import DatasetError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def list_images(folder: Path) -> list[Path]:
    """Images in a folder and below it, in order of their names.

    Raises:
        DatasetError: there are none.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DatasetError(f"The folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return files


def image_size(path: Path) -> tuple[int, int] | None:
    """(height, width) in pixels; None where there is no readable image."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
    return None if image is None else (image.shape[0], image.shape[1])
