"""Write video files, and detect files truncated by a full disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yolact_ros.errors import DatasetError


class VideoFile:
    """Writes a video with a constant rate.

    Attributes:
        path: the file.
        length: number of images written.
    """

    def __init__(self, path: Path, rate: float, first: np.ndarray) -> None:
        """Create the file, without images.

        Args:
            path: path of the file, ending in .mp4.
            rate: images per second.
            first: (H, W, 3), first image, whose size all others must have.

        Raises:
            DatasetError: OpenCV cannot write the file.
        """
        self.path = path
        self.length = 0
        size = first.shape[1], first.shape[0]
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not self._writer.isOpened():
            raise DatasetError(f"OpenCV cannot write the video {path}.")

    def write(self, image: np.ndarray) -> None:
        """Append an image, (H, W, 3) uint8 BGR."""
        self._writer.write(image)
        self.length += 1

    def close(self) -> None:
        """Finish the file.

        OpenCV reports nothing when a disk fills up; a file without its index, which comes last,
        cannot be opened.

        Raises:
            DatasetError: not all of the video has been written.
        """
        self._writer.release()
        written = cv2.VideoCapture(str(self.path))
        whole = written.isOpened() and written.get(cv2.CAP_PROP_FRAME_COUNT) == self.length
        written.release()
        if not whole:
            raise DatasetError(f"The video {self.path} is incomplete; check free disk space.")
