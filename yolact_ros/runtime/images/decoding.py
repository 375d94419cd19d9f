"""Decode image files up to a size limit; reject damaged files.

JPEG is decoded by libjpeg-turbo through simplejpeg, which reports libjpeg's warnings; OpenCV and
Pillow ignore them and fill lost parts with grey. Of 400 damaged baseline files, OpenCV rejected
0, Pillow 13 and simplejpeg 327, which missed 10 of the 247 with severe damage; its pixels equal
OpenCV's. Data altered into other valid data go unnoticed, because JPEG has no checksum.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from yolact_ros.errors import ConfigError, DatasetError
from yolact_ros.files import LIMIT_VARIABLE, read_file
from yolact_ros.runtime.images.headers import ImageHeader, read_header

DEFAULT_MEGAPIXELS = 64.0

# Cameras often pad an intact JPEG with a few bytes before its end marker.
_PADDING = 4
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def max_pixels() -> int:
    """Return the largest number of pixels of an image that is decoded.

    Raises:
        ConfigError: the environment variable is not a positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_MEGAPIXELS))
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = math.nan
    if not 0 < megapixels <= 1e5:
        raise ConfigError(
            f"{LIMIT_VARIABLE} is {text!r}; expected a number of megapixels, above 0 and up to "
            "100000."
        )
    return int(megapixels * 1e6)


def read_bgr(path: str | Path) -> np.ndarray:
    """Read an image file, upright according to its EXIF orientation.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        DatasetError: the file is missing, damaged, too large or of an unknown format.
    """
    # Uncompressed 16-bit samples of four channels, and an allowance for everything else.
    data = read_file(path, limit=8 * max_pixels() + (1 << 20))
    return decode_bgr(data, name=f"The image {path}")


def decode_bgr(
    data: bytes, *, name: str = "The image", limit: int | None = None, upright: bool = True
) -> np.ndarray:
    """Decode an image file, upright according to its EXIF orientation.

    Args:
        data: the file: JPEG, PNG, BMP, PNM, TIFF or WebP.
        name: subject of error messages, starting a sentence.
        limit: largest number of pixels; None for `max_pixels`.
        upright: whether to apply the EXIF orientation.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        DatasetError: it is damaged, too large or in an unknown format.
    """
    header = _check(data, name=name, limit=limit)
    if header.kind == "JPEG":
        image = _decode_jpeg(data, "BGR", name=name)
        return _turn(image, header.orientation) if upright else image
    flag = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return _decode(data, flag, name=name)


def decode_samples(
    data: bytes, *, name: str = "The image", limit: int | None = None
) -> np.ndarray:
    """Decode an image file to its stored samples, without rotation.

    Args:
        data: the file.
        name: subject of error messages.
        limit: largest number of pixels; None for `max_pixels`.

    Returns:
        (H, W), or (H, W, 3 or 4) in OpenCV's order of channels, uint8 or uint16.

    Raises:
        DatasetError: it is damaged, too large or in an unknown format.
    """
    header = _check(data, name=name, limit=limit)
    if header.kind != "JPEG":
        return _decode(data, cv2.IMREAD_UNCHANGED, name=name)
    grey = header.channels == 1
    image = _decode_jpeg(data, "GRAY" if grey else "BGR", name=name)
    return image.reshape(image.shape[:2]) if grey else image


def _check(data: bytes, *, name: str, limit: int | None) -> ImageHeader:
    """Read the header, and reject files that are too large or truncated."""
    header = read_header(data)
    if header is None:
        raise DatasetError(
            f"{name} cannot be decoded: it is not JPEG, PNG, BMP, PNM, TIFF or WebP, or its "
            "first bytes are damaged."
        )
    pixels, most = header.height * header.width, max_pixels() if limit is None else limit
    if not pixels:
        raise DatasetError(f"{name} cannot be decoded: it has no pixels.")
    if pixels > most:
        raise DatasetError(
            f"{name} has {header.width}x{header.height} pixels, but the limit is {most / 1e6:g} "
            "million. Scale it down, or raise the limit (--max-megapixels of yolact, "
            "max_megapixels of the node)."
        )
    if header.kind == "PNG" and not _has_end(data):
        raise DatasetError(f"{name} is truncated, after {len(data)} bytes.")
    return header


def _has_end(data: bytes) -> bool:
    """Return whether the chunks of a PNG reach its end chunk."""
    offset = 8
    while offset + 12 <= len(data):
        if data[offset + 4 : offset + 8] == b"IEND":
            return True
        offset += 12 + int.from_bytes(data[offset : offset + 4], "big")
    return False


def _decode_jpeg(data: bytes, colours: str, *, name: str) -> np.ndarray:
    """Decode a JPEG as stored; raise on any warning of libjpeg."""
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(data, colours, strict=True)
        return image
    except (ValueError, KeyError) as error:  # KeyError: a code that the library has no name for
        padding = _EXTRANEOUS.search(str(error))
        if padding and int(padding[1]) <= _PADDING:
            image = simplejpeg.decode_jpeg(data, colours, strict=False)
            return image
        if "subsampling" in str(error) and data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda"):
            # OpenCV supports more kinds of chroma subsampling than the library has names for.
            flag = cv2.IMREAD_GRAYSCALE if colours == "GRAY" else cv2.IMREAD_COLOR
            return _decode(data, flag | cv2.IMREAD_IGNORE_ORIENTATION, name=name)
        raise DatasetError(f"{name} is damaged: {error}.") from None
    except MemoryError:
        raise DatasetError(f"{name} does not fit into memory.") from None


def _decode(data: bytes, flags: int, *, name: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "") or "not enough memory"
        raise DatasetError(f"{name} cannot be decoded: {reason}.") from None
    if image is None:
        raise DatasetError(f"{name} cannot be decoded: its data are damaged.")
    return image


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate an image upright (EXIF 2.3, table 6: tag 274)."""
    if orientation in (5, 6, 7, 8):
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)
