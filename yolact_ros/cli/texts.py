"""Write text files of polygons in the YOLO format, named after their images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.cli.outputs import refuse_inputs
from yolact_ros.errors import DatasetError
from yolact_ros.files import write_file

if TYPE_CHECKING:
    from yolact_ros.runtime.images.files import Source, SourceImage

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
