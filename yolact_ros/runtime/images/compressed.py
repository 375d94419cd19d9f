"""Decode JPEG and PNG images of `sensor_msgs/CompressedImage` to BGR."""

from __future__ import annotations

import cv2
import numpy as np

from yolact_ros.errors import DatasetError, MessageError
from yolact_ros.runtime.images.decoding import decode_samples
from yolact_ros.runtime.images.encodings import ENCODINGS, bgr_from_samples, convert_colors
from yolact_ros.runtime.images.headers import JPEG_START, PNG_START

# What video transports write into `format`; their packets cannot be decoded individually.
VIDEO_FORMATS = frozenset(("h264", "h265", "hevc", "vp9", "av1", "avc", "mpeg4"))


def bgr_from_compressed(
    data: bytes | bytearray | memoryview | np.ndarray, form: str, *, limit: int | None = None
) -> np.ndarray:
    """Decode a JPEG or PNG image.

    Args:
        data: the file.
        form: the message's field `format`: `jpeg`, `png`, or, as written by image_transport,
            `ENCODING; jpeg compressed STORED`. The data determine whether it is JPEG or PNG.
            STORED `rgb8` means that red and blue are swapped in the file; ENCODING `bayer_...`
            means that it holds a Bayer mosaic, if it has one channel.
        limit: largest number of pixels; None for `decoding.max_pixels`.

    Returns:
        (H, W, 3) uint8 BGR. The EXIF orientation is ignored: boxes and masks are in the pixels
        that other readers of the topic see.

    Raises:
        MessageError: it is neither JPEG nor PNG, too large, or cannot be decoded completely.
    """
    encoded = bytes(data)
    _check_file(encoded, form)
    name = f"The compressed image (format {form!r}, {len(encoded)} bytes)"
    try:
        image = decode_samples(encoded, name=name, limit=limit)
    except DatasetError as error:
        raise MessageError(str(error)) from None
    encoding, _, rest = form.partition(";")
    stored = rest.partition("compressed")[2].strip()
    return _as_bgr(image, encoding.strip(), stored)


def _check_file(data: bytes, form: str) -> None:
    if "compressedDepth" in form:
        raise MessageError(
            f"The compressed image has format {form!r}, which is a depth format; "
            "remap `image` to a camera's colour or grey image."
        )
    if form.strip().lower() in VIDEO_FORMATS:
        raise MessageError(
            f"The compressed image has format {form!r}, a video stream, which is not supported; "
            "let image_transport republish it as raw or compressed (JPEG)."
        )
    if not data.startswith((JPEG_START, PNG_START)):
        raise MessageError(
            f"The compressed image (format {form!r}, {len(data)} bytes) is neither JPEG nor PNG; "
            "publish one of them, or set image_transport to raw."
        )


def _as_bgr(image: np.ndarray, encoding: str, stored: str) -> np.ndarray:
    """Convert (H, W) or (H, W, 1..4) uint8 or uint16, as OpenCV decodes files, to BGR."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)
    if image.ndim == 2:
        height, width = image.shape
        mosaic = encoding.startswith("bayer_") and encoding in ENCODINGS
        return bgr_from_samples(
            np.ascontiguousarray(image).reshape(-1),
            encoding.replace("16", "8") if mosaic else "mono8",  # 8 bits by now
            height=height,
            width=width,
            step=width,
        )
    if image.shape[2] == 4:
        image = convert_colors(image, cv2.COLOR_BGRA2BGR)
    return convert_colors(image, cv2.COLOR_RGB2BGR) if stored.startswith("rgb") else image
