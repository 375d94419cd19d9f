"""Records the overlays that arrive as a video and a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from yolact_ros.errors import ConfigError
from yolact_ros.runtime.images.files import is_whole_video


class OverlayVideo:
    """Writes images at the times of their stamps, and keeps the best one.

    The video has a constant rate; an image stays until the next one's time, so that the video is
    as long as what it shows, however many images were dropped.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Prepare a video.

        Args:
            path: of the file, ending in .mp4.
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
        """Show an image from a time on.

        Args:
            image: (H, W, 3) uint8 BGR; all of one size.
            seconds: its stamp; not before that of the last one.
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
        """Finish the file; returns its number of images.

        Raises:
            ConfigError: not all of the video has been written.
        """
        if self._writer is not None:
            self._write_until(self._written + 1)
            self._writer.release()
            if not is_whole_video(self._path, self._written):
                raise ConfigError(f"The video {self._path} is incomplete; is there space left?")
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
