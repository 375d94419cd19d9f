"""Write overlays and YOLO text files, named after their sources, and show overlays in a window."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.outputs import refuse_inputs
from yolact_ros.errors import BackendError, DatasetError
from yolact_ros.files import write_file

if TYPE_CHECKING:
    import numpy as np

    from yolact_ros.runtime.images.files import Source, SourceImage
    from yolact_ros.runtime.output.video import VideoFile

# Formats that every build of OpenCV writes in colour; other images become PNG.
KEPT_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))


class Overlays:
    """Represents a folder of overlays; the frames of a video must be written in sequence."""

    def __init__(self, folder: Path, files: list[Source]) -> None:
        """Check that no input is overwritten.

        Args:
            folder: folder of the overlays, created if needed.
            files: all files that will be segmented.

        Raises:
            ConfigError: one of `files` would be overwritten.
        """
        from yolact_ros.runtime.images.files import is_video, unique_names

        self._folder = folder
        self._video: VideoFile | None = None
        names = zip(files, unique_names(files), strict=True)
        refuse_inputs((self._path(name, video=is_video(file)) for file, name in names), files)

    def write(self, frame: SourceImage, drawn: np.ndarray) -> None:
        """Write one frame.

        Args:
            frame: source of the frame.
            drawn: (H, W, 3) uint8 BGR, the frame with its instances drawn.

        Raises:
            DatasetError: the file cannot be written.
        """
        from yolact_ros.runtime.images.files import write_picture

        if frame.rate:
            self._write_to_video(frame, drawn)
        else:
            write_picture(self._path(frame.name, video=False), drawn)

    def close(self) -> None:
        """Finish the last video.

        Raises:
            DatasetError: the video is incomplete.
        """
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def _path(self, name: str, *, video: bool) -> Path:
        suffix = Path(name).suffix.lower()
        if video:
            return self._folder / (name if suffix == ".mp4" else f"{name}.mp4")
        return self._folder / (name if suffix in KEPT_SUFFIXES else f"{name}.png")

    def _write_to_video(self, frame: SourceImage, drawn: np.ndarray) -> None:
        from yolact_ros.runtime.output.video import VideoFile

        path = self._path(frame.name.rpartition("#")[0], video=True)
        if self._video is None or path != self._video.path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._video = VideoFile(path, frame.rate, drawn)
        self._video.write(drawn)


CLASSES = Path("classes.txt")


class Texts:
    """Writes a folder of text files: `a/b.txt` for `a/b.jpg`, `clip_7.txt` for a video frame."""

    def __init__(self, folder: Path, files: Sequence[Source], classes: Iterable[str]) -> None:
        """Write the names of the classes to `classes.txt`.

        Args:
            folder: folder of the text files; created if needed.
            files: all files that will be segmented.
            classes: names in the order of their ids.

        Raises:
            ConfigError: one of `files` would be overwritten.
            DatasetError: two images would have the same text file, or a file cannot be written.
        """
        from yolact_ros.runtime.images.files import is_video, unique_names

        self._folder = folder
        self._taken: set[Path] = set()
        images = [n for f, n in zip(files, unique_names(files), strict=True) if not is_video(f)]
        paths = [CLASSES, *(Path(name).with_suffix(".txt") for name in images)]
        refuse_inputs((folder / path for path in paths), files)
        for path in paths:
            self._take(path)
        self._write(CLASSES, classes)

    def write(self, frame: SourceImage, rows: Iterable[str]) -> None:
        """Write the rows of one image.

        Raises:
            DatasetError: another image has the same text file, or it cannot be written.
        """
        if not frame.rate:
            self._write(Path(frame.name).with_suffix(".txt"), rows)
            return
        name, _, number = frame.name.rpartition("#")
        path = Path(name).with_suffix("")
        path = path.with_name(f"{path.name}_{number}.txt")
        self._take(path)
        self._write(path, rows)

    def _take(self, path: Path) -> None:
        if path in self._taken:
            raise DatasetError(
                f"Several images would write to the text file {path}; segment them one at a time."
            )
        self._taken.add(path)

    def _write(self, name: Path, lines: Iterable[str]) -> None:
        write_file(self._folder / name, "".join(f"{line}\n" for line in lines))


class Window:
    """Shows images in a Tk window, which the user closes with its button, q or Escape.

    Attributes:
        closed: whether the user has closed it.
    """

    def __init__(self, title: str) -> None:
        """Open the window.

        Raises:
            BackendError: there is no display, or Python lacks Tk.
        """
        try:
            import tkinter
        except ImportError as error:
            raise BackendError(
                "--show requires Tk, which this Python lacks. Install it with: sudo apt install "
                "python3-tk. Or write images with --overlay instead."
            ) from error
        try:
            self._root = tkinter.Tk(className=title)
        except tkinter.TclError as error:
            raise BackendError(
                f"--show requires a display ({error}). Write images with --overlay instead."
            ) from error
        self.closed = False
        self._photo: Any = tkinter.PhotoImage(master=self._root)
        self._label = tkinter.Label(self._root, image=self._photo)
        self._label.pack()
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        for key in ("q", "<Escape>"):
            self._root.bind(key, lambda _: self._close())

    def show(self, image: np.ndarray) -> None:
        """Show a (H, W, 3) uint8 BGR image, as large as the screen allows."""
        import cv2

        height, width = image.shape[:2]
        limit = self._root.winfo_screenwidth() / width, self._root.winfo_screenheight() / height
        scale = min(1.0, 0.9 * min(limit))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".ppm", image)
        self._photo.configure(data=data.tobytes())
        self._root.update()

    def wait(self) -> None:
        """Wait until the user closes the window."""
        while not self.closed:
            self._root.update()
            time.sleep(0.02)

    def close(self) -> None:
        """Destroy the window."""
        self._root.destroy()

    def _close(self) -> None:
        self.closed = True
