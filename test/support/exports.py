"""Write the images and files of a small export: one square, in every form."""

from __future__ import annotations

import json

import cv2
import numpy as np

HEIGHT, WIDTH = 60, 80
SQUARE = [20, 15, 60, 15, 60, 45, 20, 45]
FRACTIONS = " ".join(str(v / (HEIGHT if i % 2 else WIDTH)) for i, v in enumerate(SQUARE))


def picture(path, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), 128, np.uint8))
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def check_square(dataset, *, classes=("bolt",), index=0):
    sample = dataset.load(index)
    assert [dataset.classes[c] for c in sample.class_ids] == list(classes)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[15:45, 20:60] = 1
    np.testing.assert_array_equal(np.asarray(sample.masks)[0], expected)
