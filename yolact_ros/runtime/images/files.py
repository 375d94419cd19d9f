"""Read images from files, folders and videos, one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from yolact_ros.errors import DatasetError
from yolact_ros.runtime.images.decoding import max_pixels, read_bgr

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))


@dataclass(frozen=True, eq=False)
class SourceImage:
    """One image, or a file that cannot be read.

    Attributes:
        name: shortest end of the path that identifies the file; `#` and the number,
            from 0 on, follow for a frame of a video.
        path: the file.
        image: (H, W, 3) uint8 BGR; None if the file cannot be read.
        fault: why there is no image, as a sentence; empty if there is one.
        rate: frames per second of a video; 0 for an image.
        stamp: seconds since the video's start; None for an image.
    """

    name: str
    path: Path
    image: np.ndarray | None
    rate: float = 0.0
    stamp: float | None = None
    fault: str = ""


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """Images and videos at `paths`: files as they are, those of a folder in order of their names.

    A file that is named twice comes once.

    Raises:
        DatasetError: a folder has none, or there are no paths.
    """
    files: dict[Path, Path] = {}
    for path in map(Path, paths):
        found = [path]
        if path.is_dir():
            suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
            if not found:
                raise DatasetError(
                    f"The folder {path} holds no images or videos "
                    f"({', '.join(sorted(suffixes))}); name another one."
                )
        files.update((file.resolve(), file) for file in found)
    if not files:
        raise DatasetError("No images were named; name files or folders.")
    return list(files.values())


def is_video(path: Path) -> bool:
    """Return whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_frames(files: Iterable[Path]) -> Iterator[SourceImage]:
    """Read every image, and every frame of every video, in order."""
    files = list(files)
    for path, name in zip(files, unique_names(files), strict=True):
        if is_video(path):
            yield from _read_video(path, name)
        else:
            try:
                yield SourceImage(name, path, read_bgr(path))
            except DatasetError as error:
                yield SourceImage(name, path, None, fault=str(error))


def count_frames(files: Iterable[Path]) -> int:
    """Count the frames of `read_frames`, as far as the files state their number."""
    return sum(_video_length(path) if is_video(path) else 1 for path in files)


def is_whole_video(path: Path, length: int) -> bool:
    """Return whether a video that was just written holds `length` images.

    OpenCV reports nothing when a disk fills up; a file without its index, which comes last, cannot
    be opened.
    """
    capture = cv2.VideoCapture(str(path))
    whole = capture.isOpened() and int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == length
    capture.release()
    return whole


def unique_names(files: Iterable[Path]) -> list[str]:
    """Return for each file the shortest end of its path that no other file has."""
    parts = [path.resolve().parts for path in files]
    longest = max(map(len, parts), default=0)
    names = [""] * len(parts)
    for length in range(1, longest + 1):
        tails = ["/".join(p[-length:]) for p in parts]
        counts = Counter(tails)
        for i, tail in enumerate(tails):
            if not names[i] and counts[tail] == 1:
                names[i] = tail
    return names


def _read_video(path: Path, name: str) -> Iterator[SourceImage]:
    fault = _video_fault(path)
    if fault:
        yield SourceImage(name, path, None, fault=fault)
        return
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0.0
    rate = rate if 0 < rate < 1e4 else 30.0
    number = 0
    try:
        pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        while pixels <= max_pixels():
            readable, image = capture.read()
            if not readable:
                break
            yield SourceImage(f"{name}#{number}", path, image, rate, number / rate)
            number += 1
    finally:
        capture.release()
    if pixels > max_pixels():
        fault = f"Images of the video {path} have more than {max_pixels() / 1e6:g} million pixels."
        yield SourceImage(name, path, None, fault=fault)
    elif not number:
        yield SourceImage(
            name, path, None, fault=f"The video {path} has no image that OpenCV can read."
        )


def _video_fault(path: Path) -> str:
    """Explain why OpenCV must not open a file."""
    if not path.exists():
        return f"The video {path} does not exist."
    if not path.is_file():
        return f"The video {path} is not a regular file."
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV 5 crashes on such a name
        return f"The name of the video {str(path)!r} is not UTF-8; rename it."
    return ""


def _video_length(path: Path) -> int:
    if _video_fault(path):
        return 1
    capture = cv2.VideoCapture(str(path))
    length = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 1.0
    capture.release()
    return int(min(max(length, 1), 1e9))
