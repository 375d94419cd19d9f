"""Record overlay images as a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yolact_ros.runtime.output.video import VideoFile


class OverlayVideo:
    """Writes images at the times of their stamps.

    The video has a constant frame rate; each image is shown until the time of the next one, so the
    video is as long as the recorded time, however many images were dropped.

    Attributes:
        last: the latest image; None before the first one.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Create a recorder; the file is opened at the first image.

        Args:
            path: video file, ending in .mp4.
            rate: images per second.
        """
        self.last: np.ndarray | None = None
        self._path = path
        self._rate = rate
        self._video: VideoFile | None = None
        self._start = 0.0

    def add(self, image: np.ndarray, seconds: float) -> None:
        """Show an image from the given time on.

        Args:
            image: (H, W, 3) uint8 BGR; all images must have the same size.
            seconds: its stamp; must not precede the previous one.

        Raises:
            DatasetError: OpenCV cannot write the file.
        """
        if self._video is None:
            self._video = VideoFile(self._path, self._rate, image)
            self._start = seconds
        self._write_until(round((seconds - self._start) * self._rate))
        self.last = image

    def close(self) -> int:
        """Finish the file and return its number of images.

        Raises:
            DatasetError: the video is incomplete.
        """
        if self._video is None:
            return 0
        self._write_until(self._video.length + 1)
        self._video.close()
        return self._video.length

    def _write_until(self, length: int) -> None:
        while self._video is not None and self.last is not None and self._video.length < length:
            self._video.write(self.last)
