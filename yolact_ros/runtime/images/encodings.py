"""Convert camera pixels in the encodings of `sensor_msgs/image_encodings.hpp` to BGR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from yolact_ros.errors import MessageError


@dataclass(frozen=True)
class Layout:
    """Describes the memory layout of an encoding and its conversion to BGR.

    Attributes:
        channels: samples per pixel within a row.
        conversion: OpenCV's conversion to BGR; None if it is BGR already.
        sample_bytes: bytes per sample.
        even_width: whether neighbouring pixels share their colour.
        even_height: whether neighbouring rows share their colour.
        half_planes: planes of half height after the first; 1 for the chroma of nv12.
        smallest: minimum width and height in pixels.
    """

    channels: int
    conversion: int | None
    sample_bytes: int = 1
    even_width: bool = False
    even_height: bool = False
    half_planes: int = 0
    smallest: int = 1


# ROS names a Bayer pattern by its first row, then its second; OpenCV by the second row's second
# and third pixel. Demosaicing uses one pixel on each side.
BAYER = {
    "rggb": cv2.COLOR_BayerBG2BGR,
    "bggr": cv2.COLOR_BayerRG2BGR,
    "gbrg": cv2.COLOR_BayerGR2BGR,
    "grbg": cv2.COLOR_BayerGB2BGR,
}
# OpenCV's conversions take 0.02 ms at 640x480, a numpy copy to another channel order 1 ms.
ENCODINGS: dict[str, Layout] = {
    "bgr8": Layout(3, None),
    "8UC3": Layout(3, None),
    "rgb8": Layout(3, cv2.COLOR_RGB2BGR),
    "bgra8": Layout(4, cv2.COLOR_BGRA2BGR),
    "rgba8": Layout(4, cv2.COLOR_RGBA2BGR),
    "mono8": Layout(1, cv2.COLOR_GRAY2BGR),
    "8UC1": Layout(1, cv2.COLOR_GRAY2BGR),
    "mono16": Layout(1, cv2.COLOR_GRAY2BGR, sample_bytes=2),
    **{
        f"bayer_{pattern}{8 * size}": Layout(1, conversion, sample_bytes=size, smallest=3)
        for size in (1, 2)
        for pattern, conversion in BAYER.items()
    },
    "rgb16": Layout(3, cv2.COLOR_RGB2BGR, sample_bytes=2),
    "bgr16": Layout(3, None, sample_bytes=2),
    "yuv422": Layout(2, cv2.COLOR_YUV2BGR_UYVY, even_width=True),
    "uyvy": Layout(2, cv2.COLOR_YUV2BGR_UYVY, even_width=True),
    "yuv422_yuy2": Layout(2, cv2.COLOR_YUV2BGR_YUY2, even_width=True),
    "yuyv": Layout(2, cv2.COLOR_YUV2BGR_YUY2, even_width=True),
    "nv12": Layout(1, cv2.COLOR_YUV2BGR_NV12, even_width=True, even_height=True, half_planes=1),
    "nv21": Layout(1, cv2.COLOR_YUV2BGR_NV21, even_width=True, even_height=True, half_planes=1),
}


def bgr_from_samples(
    data: bytes | bytearray | memoryview | np.ndarray,
    encoding: str,
    *,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool = False,
) -> np.ndarray:
    """Convert the pixels of a raw image.

    Args:
        data: the rows, one after another; excess bytes are ignored. nv12 and nv21 have `height`
            rows of luma and `height / 2` rows of chroma.
        encoding: one of `ENCODINGS`. 16 bits become 8 as in cv_bridge, times 255 / 65535; yuv is
            BT.601 with the range 16 to 235.
        height: image height in pixels.
        width: image width in pixels.
        step: bytes from one row to the next; rows may be padded.
        is_bigendian: byte order of 16-bit samples; ignored for narrower ones (drivers of OAK
            cameras set it on all of them).

    Returns:
        (height, width, 3) uint8 BGR. For bgr8 and 8UC3 a view of `data`, with its row stride.

    Raises:
        MessageError: the encoding is not supported, or size, step and data are inconsistent.
    """
    if encoding not in ENCODINGS:
        raise MessageError(
            f"Image encoding {encoding!r} is not supported; "
            f"publish the image as one of: {', '.join(ENCODINGS)}."
        )
    layout = ENCODINGS[encoding]
    rows = height + layout.half_planes * height // 2
    check_rows(len(data), step, height=rows, width=width)
    _check_size(layout, encoding, height=height, width=width)
    if is_bigendian and layout.sample_bytes > 1:
        raise MessageError(
            f"The image is flagged as big-endian; {encoding} is supported with little-endian "
            "samples only. Configure the camera's driver to publish those, with is_bigendian 0."
        )
    pixel_bytes = layout.channels * layout.sample_bytes
    if step < width * pixel_bytes:
        raise MessageError(
            f"The image's step is {step} bytes; a row of {width} pixels in "
            f"{encoding} has {width * pixel_bytes}."
        )
    if layout.sample_bytes == 2:
        lines = np.ndarray((rows, width * pixel_bytes), np.uint8, buffer=data, strides=(step, 1))
        samples = np.ascontiguousarray(lines).view("<u2").reshape(rows, width, layout.channels)
        # Scaled first: OpenCV demosaics and reorders 8 bits just as well, and faster.
        pixels = cv2.convertScaleAbs(samples, alpha=255 / 65535).reshape(samples.shape)
    else:
        shape, strides = (rows, width, layout.channels), (step, layout.channels, 1)
        pixels = np.ndarray(shape, np.uint8, buffer=data, strides=strides)
    return pixels if layout.conversion is None else convert_colors(pixels, layout.conversion)


def convert_colors(image: np.ndarray, conversion: int) -> np.ndarray:
    """Call `cv2.cvtColor`, which up to OpenCV 4.5.4 rejects a single pixel of three channels."""
    if image.shape[:2] == (1, 1):
        return cv2.cvtColor(np.repeat(image, 2, axis=1), conversion)[:, :1]
    return cv2.cvtColor(image, conversion)


def image_fields(message: Any) -> dict[str, Any]:
    """Return the fields of a `sensor_msgs/Image`, of ROS or of a bag, that readers take."""
    names = ("data", "encoding", "height", "width", "step")
    fields = {name: getattr(message, name) for name in names}
    return fields | {"is_bigendian": bool(message.is_bigendian)}


def check_rows(num_bytes: int, step: int, *, height: int, width: int) -> None:
    """Check that the data contain `height` rows of `step` bytes.

    Raises:
        MessageError: the image has no pixels, or more rows than data.
    """
    if height == 0 or width == 0:
        raise MessageError(f"The image is empty: {width}x{height} pixels.")
    if num_bytes < step * height:
        raise MessageError(
            f"The image has {num_bytes} bytes of data; its {height} rows of {step} bytes "
            f"need {step * height}."
        )


def _check_size(layout: Layout, encoding: str, *, height: int, width: int) -> None:
    if min(height, width) < layout.smallest:
        raise MessageError(
            f"The image has {width}x{height} pixels; {encoding} requires at least "
            f"{layout.smallest}x{layout.smallest}."
        )
    if layout.even_width and width % 2 or layout.even_height and height % 2:
        even = "width and height" if layout.even_height else "width"
        raise MessageError(
            f"The image has {width}x{height} pixels; {encoding} requires an even {even}, because "
            "neighbours share their colour."
        )
