"""Read images from files, folders, videos, cameras and network streams, one after another."""

from __future__ import annotations

import glob
import re
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from yolact_ros.errors import DatasetError
from yolact_ros.files import write_file
from yolact_ros.runtime.images.decoding import max_pixels, read_bgr

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"))

# A file, or as text the index of a camera or the address of a stream.
Source = Path | str
LIVE = re.compile(r"(?:/dev/video)?(\d{1,6})|[a-z][a-z0-9+.-]*://.+", re.IGNORECASE)
LIVE_TIMEOUT_MS = 10_000  # until a stream opens, and between two of its images


@dataclass(frozen=True, eq=False)
class SourceImage:
    """Holds one image, or the fault of a file that cannot be read.

    Attributes:
        name: shortest unique end of the file's path; for a frame of a video, `#` and its number,
            counted from 0, follow.
        path: the file, camera or stream.
        image: (H, W, 3) uint8 BGR; None if the file cannot be read.
        fault: why there is no image, as a sentence; empty if there is one.
        rate: frames per second of a video; 0 for an image.
        stamp: seconds since the start of the video, camera or stream; None for an image.
    """

    name: str
    path: Source
    image: np.ndarray | None
    rate: float = 0.0
    stamp: float | None = None
    fault: str = ""


def find_sources(names: Iterable[str | Path]) -> list[Source]:
    """Return the result of `find_files`, with cameras and streams as text.

    Raises:
        DatasetError: see `find_files`; or an address is malformed.
    """
    sources: list[Source] = []
    for name in names:
        live = LIVE.fullmatch(str(name))
        if live and not Path(name).is_file():
            try:
                urlsplit(str(name))
            except ValueError as error:
                raise DatasetError(f"{name} is not a stream address: {error}.") from error
            sources.append(live.group(1) or str(name))
        else:
            sources += [file for file in find_files([name]) if file not in sources]
    return sources


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return images and videos: files in the given order, those of folders and patterns by name.

    A file that is named twice is returned once.

    Raises:
        DatasetError: a folder has none, nothing matches a pattern, or there are no paths.
    """
    files: dict[Path, Path] = {}
    for path in map(Path, paths):
        found = [path]
        if glob.has_magic(str(path)) and not path.exists():
            found = sorted(map(Path, glob.glob(str(path), recursive=True)))
            if not found:
                raise DatasetError(f"Nothing matches the pattern {path}.")
        if path.is_dir():
            suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
            if not found:
                raise DatasetError(
                    f"The folder {path} contains no images or videos "
                    f"({', '.join(sorted(suffixes))}); name another one."
                )
        files.update((file.resolve(), file) for file in found)
    if not files:
        raise DatasetError("No images were given; name files or folders.")
    return list(files.values())


def is_video(source: Source) -> bool:
    """Return whether a source is a video (by its suffix), a camera or a stream."""
    return isinstance(source, str) or source.suffix.lower() in VIDEO_SUFFIXES


def read_frames(files: Iterable[Source]) -> Iterator[SourceImage]:
    """Read every image, and every frame of every video, in order; live sources may never end."""
    files = list(files)
    for path, name in zip(files, unique_names(files), strict=True):
        if isinstance(path, str) or is_video(path):
            yield from video_frames(path, name)
        else:
            try:
                yield SourceImage(name, path, read_bgr(path))
            except DatasetError as error:
                yield SourceImage(name, path, None, fault=str(error))


def count_frames(files: Iterable[Source]) -> int | None:
    """Count the frames of `read_frames`, if files state it; return None for a live source."""
    count = 0
    for source in files:
        if isinstance(source, str):
            return None
        count += _video_length(source) if is_video(source) else 1
    return count


def unique_names(files: Iterable[Source]) -> list[str]:
    """Return the shortest unique end of the path of each file; see also `_live_name`."""
    parts = [(_live_name(f),) if isinstance(f, str) else f.resolve().parts for f in files]
    longest = max(map(len, parts), default=0)
    names = [""] * len(parts)
    for length in range(1, longest + 1):
        tails = ["/".join(p[-length:]) for p in parts]
        counts = Counter(tails)
        for i, tail in enumerate(tails):
            if not names[i] and counts[tail] == 1:
                names[i] = tail
    return names


def _live_name(source: str) -> str:
    """Return a file-like name for a camera or stream, without a password in its address."""
    if source.isdigit():
        return f"camera{source}"
    address = urlsplit(source)
    location = f"{address.hostname or ''}{address.path}".strip("/")
    return re.sub(r"[^\w.-]+", "_", location) or "stream"


def _open_video(source: Source) -> cv2.VideoCapture:
    if not isinstance(source, str):
        return cv2.VideoCapture(str(source))
    if source.isdigit():
        capture = cv2.VideoCapture(int(source))
    else:
        timeouts = cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC
        settings = [value for name in timeouts for value in (name, LIVE_TIMEOUT_MS)]
        capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG, settings)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest image, if the driver supports it
    return capture


def video_frames(path: Source, name: str) -> Iterator[SourceImage]:
    """Read every frame of a video file, camera or stream; a single one, without image, on a fault.

    Args:
        path: the file, camera or stream.
        name: of its frames, to which `#` and the number are appended.
    """
    fault = "" if isinstance(path, str) else _video_fault(path)
    if not fault:
        fault = yield from _readable_frames(path, name)
    if fault:
        yield SourceImage(name, path, None, fault=fault)


def _readable_frames(path: Source, name: str) -> Generator[SourceImage, None, str]:
    """Yield the frames that can be read; return what is wrong, or an empty text."""
    live = isinstance(path, str)
    capture = _open_video(path)
    rate = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0.0
    rate = rate if 0 < rate < 1e4 else 30.0
    number, started = 0, time.monotonic()
    try:
        pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        while pixels <= max_pixels():
            readable, image = capture.read()
            if not readable:
                break
            stamp = time.monotonic() - started if live else number / rate
            yield SourceImage(f"{name}#{number}", path, image, rate, stamp)
            number += 1
    finally:
        capture.release()
    if pixels > max_pixels():
        return f"Images of the video {name} have more than {max_pixels() / 1e6:g} million pixels."
    if number:
        return ""
    if not live:
        return f"The video {path} contains no image that OpenCV can read."
    hint = "the camera is connected and free" if str(path).isdigit() else "it is reachable"
    return f"{name} returns no images. Check that {hint}."


def _video_fault(path: Path) -> str:
    """Explain why OpenCV must not open a file; empty if it may."""
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


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write an image file in the format of its suffix; create its folder if necessary.

    Raises:
        DatasetError: it cannot be written.
    """
    _, data = cv2.imencode(path.suffix, image)
    write_file(path, data.tobytes())  # OpenCV does not accept every file name
