"""Convert images to the network's input, and network coordinates back to the image's."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.config import LETTERBOX_FILL_BGR, ModelConfig


@dataclass(frozen=True)
class Placement:
    """Locates a source image within the network's input.

    A position f in the input, as a fraction of it, is pixel `f * extent - shift` of the source
    image, for rows and columns alike.

    Attributes:
        image_size: (height, width) of the source image in pixels.
        extent: (height, width) of the whole input, measured in pixels of the source image.
        shift: (rows, columns) of input above and left of the image, in pixels of the source image.
    """

    image_size: tuple[int, int]
    extent: tuple[float, float]
    shift: tuple[float, float] = (0.0, 0.0)

    def boxes_to_image(self, boxes_unit: np.ndarray) -> np.ndarray:
        """Convert (N, 4) float32 x1 y1 x2 y2 fractions of the input to pixels, clipped."""
        height, width = self.image_size
        (rows, columns), (top, left) = self.extent, self.shift
        scale = np.array([columns, rows, columns, rows], np.float32)
        shift = np.array([left, top, left, top], np.float32)
        limit = np.array([width, height, width, height], np.float32)
        # A network that has diverged may predict non-finite boxes.
        boxes: np.ndarray = np.nan_to_num(boxes_unit * scale - shift)
        return boxes.clip(0, limit)


def check_image(image: np.ndarray) -> None:
    """Check that an array is a colour image.

    Raises:
        ValueError: `image` is not (H, W, 3) uint8 with at least one pixel.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"The image is a {type(image).__name__}; expected a numpy array.")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"The image has shape {image.shape} and type {image.dtype}; expected (height, width, "
            "3) uint8 in the order blue, green, red. Convert a grey image with "
            "cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)."
        )


def prepare_image(image: np.ndarray, model: ModelConfig) -> tuple[np.ndarray, Placement]:
    """Resize an image to the network's input; normalisation is part of the graph.

    Args:
        image: (H, W, 3) uint8 BGR; any strides.
        model: defines the input size and how images are resized.

    Returns:
        (1, S, S, 3) uint8 BGR, contiguous, and the position of the image in it.

    Raises:
        ValueError: the image has the wrong shape or type.
    """
    check_image(image)
    if model.resize == "letterbox":
        return _letterbox(image, model.input_size)
    height, width = image.shape[:2]
    placement = Placement((height, width), (float(height), float(width)))
    return _resized(image, model.input_size)[None], placement


def _letterbox(image: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, Placement]:
    """Resize with the aspect ratio kept; the image is centred in the input."""
    height, width = image.shape[:2]
    scale = min(input_size[0] / height, input_size[1] / width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (input_size[0] - inner[0]) // 2, (input_size[1] - inner[1]) // 2
    canvas = np.empty((*input_size, 3), np.uint8)
    canvas[...] = LETTERBOX_FILL_BGR
    canvas[top : top + inner[0], left : left + inner[1]] = _resized(image, inner)
    # By the rounded size, so that masks and boxes map back exactly.
    row_step, column_step = height / inner[0], width / inner[1]
    return canvas[None], Placement(
        (height, width),
        (input_size[0] * row_step, input_size[1] * column_step),
        (top * row_step, left * column_step),
    )


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    if image.shape[:2] == (1, 1):  # OpenCV up to 4.5.4 rejects a single pixel
        return np.tile(image, (*size, 1))
    return cv2.resize(
        np.ascontiguousarray(image), (size[1], size[0]), interpolation=cv2.INTER_LINEAR
    )
