"""Read files and values of data sets with limits, and find files where exporters put them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np

from yolact_ros.datasets.findings import NOTE, WARNING, Findings
from yolact_ros.errors import DatasetError
from yolact_ros.files import read_file, shown
from yolact_ros.runtime.images.decoding import decode_bgr
from yolact_ros.runtime.images.encodings import convert_colors
from yolact_ros.runtime.images.headers import ImageHeader, read_header

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_PICTURE_BYTES = 2**29
MAX_TEXT_BYTES = 2**26
# Label Studio prefixes the name of an uploaded file with eight hexadecimal digits.
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")


def is_regular(path: Path) -> bool:
    """Return whether `path` is a regular file; False for a name that the system rejects."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_picture(path: Path) -> bytes:
    """Read a picture file.

    Raises:
        DatasetError: it is missing, not a regular file, or exceeds `MAX_PICTURE_BYTES`.
    """
    return read_file(path, limit=MAX_PICTURE_BYTES)


def picture_size(picture: Path | bytes) -> tuple[int, int] | None:
    """Return the displayed (height, width) of an image; None without a readable header."""
    try:
        header = read_header(picture if isinstance(picture, bytes) else read_picture(picture))
    except DatasetError:
        return None
    return header.upright if header else None


def is_displayed_size(size: tuple[int, int] | None, header: ImageHeader | None) -> bool:
    """Return whether annotations of this size apply to the image as EXIF rotates it.

    Otherwise they apply to the stored pixels, whose size they have and the rotated picture lacks.
    """
    return header is None or size != header.stored or header.stored == header.upright


def report_rotation(
    findings: Findings, name: str, size: tuple[int, int] | None, header: ImageHeader | None
) -> None:
    """Report an image that EXIF rotates and that has annotations of this size."""
    if header is None or header.orientation == 1:
        return
    place = f"{name}, EXIF orientation {header.orientation}"
    if is_displayed_size(size, header):
        kind = "image rotated by EXIF; its annotations must be on the rotated image"
        findings.add(WARNING if header.orientation < 5 else NOTE, kind, place)
    else:
        findings.add(NOTE, "image annotated on its unrotated pixels, which are used", place)


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """Read UTF-8 text, with or without a byte-order mark.

    Raises:
        DatasetError: it cannot be read, is larger than `limit` bytes or is not UTF-8.
    """
    try:
        return read_file(path, limit=limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{shown(path)} is not UTF-8 text: {error}. Save it as UTF-8."
        ) from error


def list_images(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, ordered by name.

    Raises:
        DatasetError: there are none.
    """
    files = sorted(walk(folder, IMAGE_SUFFIXES))
    if not files:
        raise DatasetError(
            f"The folder {folder} contains no images ({', '.join(IMAGE_SUFFIXES)}); name another "
            "folder."
        )
    return files


def walk(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield files below a folder by suffix, following links to folders without looping."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if name.lower().endswith(suffixes):
                yield Path(root) / name


def decode_picture(data: bytes, *, rotate: bool = True, grey: bool = False) -> np.ndarray | None:
    """Decode an image file.

    Args:
        data: the file's bytes.
        rotate: whether to apply the EXIF rotation.
        grey: whether to return one channel.

    Returns:
        (H, W, 3) uint8 BGR, or (H, W) uint8; None if it is damaged or has more pixels than
        `runtime.images.decoding.max_pixels`.
    """
    try:
        image = decode_bgr(data, upright=rotate)
    except DatasetError:
        return None
    return convert_colors(image, cv2.COLOR_BGR2GRAY) if grey else image


class PictureFinder:
    """Finds the images of a data set, even if its paths come from another machine.

    Exporters write absolute paths, prefixes, Windows separators, URLs and names with a prefix.
    A name is first looked up unchanged. Failing that, its longest end that exists in the folder
    is used, then the only file with its base name, ignoring case.
    """

    def __init__(self, *folders: Path) -> None:
        """Search `folders` in order; they are listed only when a lookup fails."""
        self.folders = folders
        self._by_name: dict[str, list[Path]] | None = None

    def __call__(self, name: str) -> Path | None:
        """Return the file of `name`; None if there is none, or several candidates."""
        if not name or "\0" in name:
            return None
        for folder in self.folders:
            if is_regular(folder / name):
                return folder / name
        parts = self._parts(name)
        for start in range(len(parts)):
            tail = Path(*parts[start:])
            for folder in self.folders:
                if is_regular(folder / tail):
                    return folder / tail
        return self._by_base_name(parts[-1], parts) if parts else None

    @staticmethod
    def _parts(name: str) -> list[str]:
        """Return the parts of a path in any form, or of a URL, without root and dots."""
        text = name
        if "://" in text or text.startswith("/data/"):
            text = text.partition("?d=")[2] or text.split("://")[-1].split("?")[0]
            text = unquote(text)
        if "\\" in text:
            text = PureWindowsPath(text).as_posix()
        return [p for p in text.split("/") if p not in ("", ".", "..") and not p.endswith(":")]

    def _by_base_name(self, base: str, parts: list[str]) -> Path | None:
        if self._by_name is None:
            self._by_name = {}
            outer = {f for f in self.folders if not set(f.parents) & set(self.folders)}
            for folder in outer:
                for path in walk(folder, IMAGE_SUFFIXES):
                    self._by_name.setdefault(path.name.lower(), []).append(path)
        for candidate in (base, UPLOAD_PREFIX.sub("", base), unquote(base)):
            found = self._by_name.get(candidate.lower(), [])
            if len(found) == 1:
                return found[0]
            ends = [p for p in found if p.parts[-2:-1] == tuple(parts[-2:-1])]
            if len(ends) == 1:
                return ends[0]
        return None


WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,18}(\.0*)?\s*")
TRUE = {"1", "true", "yes"}
FALSE = {"0", "false", "no", "none", ""}


def whole_number(value: Any) -> int | None:
    """Parse an id or a count: 7, 7.0, "7" and "7.0" are 7; return None for anything else."""
    if isinstance(value, str) and WHOLE_NUMBER.fullmatch(value):
        value = int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**62:
        return None
    return value


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return (height, width) if both can be read as positive numbers."""
    size = whole_number(height) or 0, whole_number(width) or 0
    return size if min(size) > 0 else None


def flag(value: Any) -> bool | None:
    """Parse a boolean, even as text; return None for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        value = 1 if word in TRUE else 0 if word in FALSE else whole_number(word)
    return bool(value) if value in (0, 1) else None


def clean_name(name: Any) -> str:
    """Return a class name without surrounding spaces and with single ones inside."""
    return " ".join(str(name).split())
