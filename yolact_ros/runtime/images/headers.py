"""Read size and orientation of image files from their first bytes, before allocating memory."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
# Start-of-frame markers of JPEG: C0 to CF without tables (C4), JPG (C8) and arithmetic (CC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 274, 256, 257


@dataclass(frozen=True)
class ImageHeader:
    """Holds the contents of an image file's header.

    Attributes:
        kind: `JPEG`, `PNG`, `BMP`, `PNM`, `TIFF` or `WebP`.
        height: stored rows, before `orientation` is applied.
        width: stored columns.
        orientation: EXIF orientation of a JPEG or PNG, 1 to 8; 1 (upright) if there is none.
        channels: of a JPEG: 1 grey, 3 colour, 4 CMYK; 3 for all other formats.
        bits: bits per stored sample of a PNG; 8 for all other formats.
    """

    kind: str
    height: int
    width: int
    orientation: int = 1
    channels: int = 3
    bits: int = 8

    @property
    def stored(self) -> tuple[int, int]:
        """Return the (height, width) of the stored pixels."""
        return self.height, self.width

    @property
    def upright(self) -> tuple[int, int]:
        """Return the (height, width) after applying the EXIF rotation."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def read_header(data: bytes) -> ImageHeader | None:
    """Read the header of an image file.

    Args:
        data: the file, or enough of its start.

    Returns:
        None if it has none of the formats above, or its header is damaged.
    """
    try:
        if data.startswith(JPEG_START):
            return _read_jpeg(data)
        if data.startswith(PNG_START):
            return _read_png(data)
        if data.startswith(b"BM"):
            return _read_bmp(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _read_webp(data)
        if data[:4] in (b"II*\0", b"MM\0*"):
            tags = _read_tags(data)
            return ImageHeader("TIFF", tags[_TIFF_HEIGHT], tags[_TIFF_WIDTH])
        if match := _PNM.match(data[:4096]):
            return ImageHeader("PNM", int(match[2]), int(match[1]))
    except (struct.error, IndexError, KeyError):  # truncated, or an entry is missing
        return None
    return None


def _read_jpeg(data: bytes) -> ImageHeader | None:
    """Walk the segments of a JPEG (ITU-T T.81, annex B) up to the one with its size."""
    offset, orientation = 2, 1
    while data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without content
            offset += 2
            continue
        (length,) = struct.unpack_from(">H", data, offset + 2)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return ImageHeader("JPEG", height, width, orientation, data[offset + 9])
        if marker == 0xE1 and data[offset + 4 : offset + 10] == b"Exif\0\0":
            orientation = _read_orientation(data[offset + 10 : offset + 2 + length])
        offset += 2 + length
    return None


def _read_png(data: bytes) -> ImageHeader:
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    offset, orientation = 8, 1
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        if data[offset + 4 : offset + 8] == b"eXIf":
            orientation = _read_orientation(data[offset + 8 : offset + 8 + length])
        offset += 12 + length
    return ImageHeader("PNG", height, width, orientation, bits=bits)


def _read_orientation(exif: bytes) -> int:
    """Read the EXIF orientation; return 1 if the tag is damaged, which does no further harm."""
    try:
        value = _read_tags(exif).get(_ORIENTATION, 1)
    except (struct.error, IndexError):
        return 1
    return value if 1 <= value <= 8 else 1


def _read_bmp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader("BMP", abs(height), abs(width))


def _read_webp(data: bytes) -> ImageHeader | None:
    """Read one of WebP's three headers (RFC 9649, sections 2.5 to 2.7)."""
    chunk = data[12:16]
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader("WebP", height & 0x3FFF, width & 0x3FFF)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return ImageHeader("WebP", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        return ImageHeader("WebP", height, width)
    return None


def _read_tags(data: bytes) -> dict[int, int]:
    """Read the integers of the first directory of a TIFF (TIFF 6.0, section 2), also for EXIF."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    tags = {}
    for i in range(count):
        tag, kind = struct.unpack_from(f"{order}HH", data, start + 2 + 12 * i)
        form = {3: "H", 4: "I"}.get(kind)
        if form is not None:
            (tags[tag],) = struct.unpack_from(f"{order}{form}", data, start + 10 + 12 * i)
    return tags
