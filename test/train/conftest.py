"""Pictures to train on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> tuple[Path, Path]:
    """Twelve pictures with a red square and a blue disc each: annotation file and folder."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(12):
        image = random.integers(0, 60, (96, 128, 3), np.uint8)
        x, y = (int(v) for v in random.integers(5, 50, 2))
        cv2.rectangle(image, (x, y), (x + 30, y + 30), (0, 0, 250), -1)
        square = [x, y, x + 31, y, x + 31, y + 31, x, y + 31]
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        disc = np.stack([100 + 15 * np.cos(angles), 60 + 15 * np.sin(angles)], axis=1)
        cv2.fillPoly(image, [disc.astype(np.int32)], (250, 0, 0))
        cv2.imwrite(str(folder / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "height": 96, "width": 128})
        for category, polygon in ((3, square), (7, disc.ravel().tolist())):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": category,
                 "segmentation": [polygon], "iscrowd": 0}
            )  # fmt: skip
    path = folder / "instances.json"
    path.write_text(
        json.dumps(
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 3, "name": "square"}, {"id": 7, "name": "disc"}],
            }
        )
    )
    return path, folder
