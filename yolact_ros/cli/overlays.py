"""Write images and videos with their instances drawn, named after their sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.outputs import refuse_inputs
from yolact_ros.errors import DatasetError

if TYPE_CHECKING:
    import numpy as np

    from yolact_ros.runtime.images.files import Source, SourceImage

# Formats that every build of OpenCV writes in colour; other images become PNG.
KEPT_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


class Overlays:
    """Represents a folder of overlays; the frames of a video must be written in sequence."""

    def __init__(self, folder: Path, files: list[Source]) -> None:
        """Prepare the folder.

        Args:
            folder: folder of the overlays, created if needed.
            files: all files that will be segmented.

        Raises:
            ConfigError: one of `files` would be overwritten.
            DatasetError: the folder cannot be created.
        """
        from yolact_ros.runtime.images.files import is_video, unique_names

        self._folder = folder
        self._video: Any = None
        self._video_path = Path()
        self._length = 0  # frames in the video
        names = zip(files, unique_names(files), strict=True)
        refuse_inputs((self._path(name, video=is_video(file)) for file, name in names), files)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(
                f"The overlay folder {folder} cannot be created: {error}."
            ) from error

    def write(self, frame: SourceImage, drawn: np.ndarray) -> None:
        """Write one frame.

        Args:
            frame: source of the frame.
            drawn: (H, W, 3) uint8 BGR, the frame with its instances drawn.

        Raises:
            DatasetError: the file cannot be written.
        """
        import cv2

        if frame.rate:
            self._write_to_video(frame, drawn)
            return
        path = self._path(frame.name, video=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        written, data = cv2.imencode(path.suffix, drawn)
        try:
            path.write_bytes(data.tobytes())  # OpenCV does not accept every file name
        except OSError:
            written = False
        if not written:
            raise DatasetError(f"OpenCV cannot write the overlay {path}; check free disk space.")

    def close(self) -> None:
        """Finish the last video.

        Raises:
            DatasetError: the video is incomplete.
        """
        from yolact_ros.runtime.images.files import is_whole_video

        if self._video is None:
            return
        self._video.release()
        self._video = None
        if not is_whole_video(self._video_path, self._length):
            raise DatasetError(
                f"The video {self._video_path} is incomplete; check free disk space."
            )

    def _path(self, name: str, *, video: bool) -> Path:
        suffix = Path(name).suffix.lower()
        if video:
            return self._folder / (name if suffix == ".mp4" else f"{name}.mp4")
        return self._folder / (name if suffix in KEPT_SUFFIXES else f"{name}.png")

    def _write_to_video(self, frame: SourceImage, drawn: np.ndarray) -> None:
        import cv2

        path = self._path(frame.name.rpartition("#")[0], video=True)
        if self._video is None or path != self._video_path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            size = drawn.shape[1], drawn.shape[0]
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            video = cv2.VideoWriter(str(path), codec, frame.rate, size)
            if not video.isOpened():
                raise DatasetError(f"OpenCV cannot write the video {path}.")
            self._video, self._video_path, self._length = video, path, 0
        self._video.write(drawn)
        self._length += 1
