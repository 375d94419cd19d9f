"""JPEG and PNG images of cameras, as `sensor_msgs/CompressedImage` carries them, to BGR."""

from __future__ import annotations

import cv2
import numpy as np

from yolact_ros.errors import MessageError
from yolact_ros.runtime.images.encodings import ENCODINGS, bgr_from_samples

JPEG_START = b"\xff\xd8\xff"
JPEG_SCAN = b"\xff\xda"  # never inside of a scan's data, nor is the end
JPEG_END = b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND"


def bgr_from_compressed(
    data: bytes | bytearray | memoryview | np.ndarray, form: str
) -> np.ndarray:
    """Decode a JPEG or PNG image.

    Args:
        data: the file.
        form: the message's field `format`: `jpeg`, `png`, or as image_transport writes it,
            `ENCODING; jpeg compressed STORED`. The data themselves say whether they are JPEG or
            PNG. STORED `rgb8` means that the file's red and blue are exchanged; ENCODING
            `bayer_...` that it holds a mosaic, if it has one channel.

    Returns:
        (H, W, 3) uint8 BGR. A camera's note on its rotation (EXIF) is not followed: boxes and
        masks are in the pixels that other readers of the topic see.

    Raises:
        MessageError: it is neither JPEG nor PNG, or cannot be decoded as a whole.
    """
    encoded = bytes(data)
    _check_file(encoded, form)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MessageError(
            f"The compressed image (format {form!r}, {len(encoded)} bytes) cannot be decoded: "
            f"{error.err}."
        ) from None
    if image is None:
        raise MessageError(
            f"The compressed image (format {form!r}, {len(encoded)} bytes) cannot be decoded; "
            "its data are damaged."
        )
    encoding, _, rest = form.partition(";")
    stored = rest.partition("compressed")[2].strip()
    return _as_bgr(image, encoding.strip(), stored)


def _check_file(data: bytes, form: str) -> None:
    """Decoders pad a file that ends early with grey, which would pass for an image."""
    if "compressedDepth" in form:
        raise MessageError(
            f"The compressed image has format {form!r}, which is depth; "
            "remap `image` to a camera's colour or grey image."
        )
    if data.startswith(JPEG_START):
        complete = data.rfind(JPEG_END) > data.rfind(JPEG_SCAN) >= 0
    elif data.startswith(PNG_START):
        complete = PNG_END in data[-64:]
    else:
        raise MessageError(
            f"The compressed image (format {form!r}, {len(data)} bytes) is neither JPEG nor PNG; "
            "publish one of them, or set image_transport to raw."
        )
    if not complete:
        raise MessageError(
            f"The compressed image (format {form!r}) ends early, after {len(data)} bytes."
        )


def _as_bgr(image: np.ndarray, encoding: str, stored: str) -> np.ndarray:
    """(H, W) or (H, W, 1..4) uint8 or uint16, as OpenCV decodes a file, to BGR."""
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)
    if image.ndim == 2:
        height, width = image.shape
        mosaic = encoding.startswith("bayer_") and encoding in ENCODINGS
        return bgr_from_samples(
            np.ascontiguousarray(image).reshape(-1),
            encoding if mosaic else "mono8",
            height=height,
            width=width,
            step=width,
        )
    if image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if stored.startswith("rgb") else image
