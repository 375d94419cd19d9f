"""Record overlay images as a video, and the best one as a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yolact_ros.errors import ConfigError
from yolact_ros.runtime.images.files import is_whole_video


class OverlayVideo:
    """Writes images at the times of their stamps, and keeps the best one.

    The video has a constant frame rate; each image is shown until the time of the next one, so the
    video is as long as the recorded time, however many images were dropped.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Create a recorder; the file is opened at the first image.

        Args:
            path: video file, ending in .mp4.
            rate: images per second.
        """
        self.best: np.ndarray | None = None
        self._path = path
        self._rate = rate
        self._writer: cv2.VideoWriter | None = None
        self._last: np.ndarray | None = None
        self._best_rank = -1.0
        self._start = 0.0
        self._written = 0

    def add(self, image: np.ndarray, seconds: float, *, rank: float) -> None:
        """Show an image from the given time on.

        Args:
            image: (H, W, 3) uint8 BGR; all images must have the same size.
            seconds: its stamp; must not precede the previous one.
            rank: the image with the highest rank is kept in `best`.

        Raises:
            ConfigError: OpenCV cannot write the file.
        """
        if self._writer is None:
            self._writer = self._open(image)
            self._start = seconds
        self._write_until(round((seconds - self._start) * self._rate))
        self._last = image
        if rank > self._best_rank:
            self.best, self._best_rank = image, rank

    def close(self) -> int:
        """Finish the file and return its number of images.

        Raises:
            ConfigError: the video is incomplete.
        """
        if self._writer is not None:
            self._write_until(self._written + 1)
            self._writer.release()
            if not is_whole_video(self._path, self._written):
                raise ConfigError(f"The video {self._path} is incomplete; check free disk space.")
        return self._written

    def _write_until(self, index: int) -> None:
        while self._last is not None and self._written < index:
            assert self._writer is not None
            self._writer.write(self._last)
            self._written += 1

    def _open(self, image: np.ndarray) -> cv2.VideoWriter:
        height, width, _ = image.shape
        writer = cv2.VideoWriter(
            str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, (width, height)
        )
        if not writer.isOpened():
            raise ConfigError(f"OpenCV cannot write the video {self._path}.")
        return writer
