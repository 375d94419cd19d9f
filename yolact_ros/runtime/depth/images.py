"""Convert depth images, raw or compressed, to metres, and read calibrations."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from yolact_ros.errors import DatasetError, MessageError
from yolact_ros.runtime.depth.objects import Intrinsics
from yolact_ros.runtime.images.decoding import decode_samples
from yolact_ros.runtime.images.encodings import check_rows, image_fields
from yolact_ros.runtime.images.headers import PNG_START

# Encoding -> sample type and metres per unit (REP 118).
DEPTH_ENCODINGS = {
    "16UC1": (np.uint16, 0.001),
    "mono16": (np.uint16, 0.001),
    "32FC1": (np.float32, 1.0),
}

# Header that compressed_depth_image_transport writes before the PNG: the kind of quantization
# (0: inverse depth) and its parameters A and B.
PREFIX = struct.Struct("<iff")


def depth_in_metres(
    data: object,
    encoding: str,
    *,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool,
    unit: float = 0.0,
    longest: float = math.inf,
) -> np.ndarray:
    """Convert a depth image (REP 118).

    Args:
        data: bytes of the rows.
        encoding: a key of `DEPTH_ENCODINGS`: millimetres as integers or metres as floats.
        height: image height in pixels.
        width: image width in pixels.
        step: bytes from one row to the next.
        is_bigendian: byte order of the samples.
        unit: metres per unit; 0 for that of the encoding.
        longest: metres above which a depth is unknown; cameras also mark missing depth by FLT_MAX.

    Returns:
        (height, width) float32; NaN where the depth is 0, negative, infinite, not a number or
        above `longest`.

    Raises:
        MessageError: the encoding is not supported, or size, step and data are inconsistent.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise MessageError(
            f"Depth encoding {encoding!r} is not supported; publish depth as 16UC1 (millimetres) "
            "or 32FC1 (metres)."
        )
    kind, usual_unit = DEPTH_ENCODINGS[encoding]
    dtype = np.dtype(kind).newbyteorder(">" if is_bigendian else "<")
    check_rows(len(data), step, height=height, width=width)  # type: ignore[arg-type]
    if step < width * dtype.itemsize:
        raise MessageError(
            f"The depth image's step is {step} bytes; a row of {width} pixels in {encoding} has "
            f"{width * dtype.itemsize}."
        )
    stored = np.ndarray((height, width), dtype, buffer=data, strides=(step, dtype.itemsize))  # type: ignore[arg-type]
    return _in_metres(stored.astype(np.float32), unit or usual_unit, longest)


def compressed_depth_in_metres(
    data: bytes | bytearray | memoryview | np.ndarray,
    form: str,
    *,
    unit: float = 0.0,
    longest: float = math.inf,
) -> np.ndarray:
    """Convert a depth image of image_transport's plugin compressedDepth.

    Args:
        data: the prefix of 12 bytes and a PNG of 16 bits. For 16UC1 and mono16 it holds the
            samples, for 32FC1 `A / depth + B`, and 0 where the depth is unknown.
        form: the message's field `format`: `ENCODING; compressedDepth`, or
            `ENCODING; compressedDepth png`.
        unit: metres per unit; 0 for that of the encoding.
        longest: metres above which a depth is unknown.

    Returns:
        See `depth_in_metres`.

    Raises:
        MessageError: it is not such an image (RVL is not supported), or it is damaged.
    """
    encoding, _, plugin = (part.strip() for part in form.partition(";"))
    name = f"The compressed depth image (format {form!r}, {len(data)} bytes)"
    if "rvl" in plugin.lower():
        raise MessageError(
            f"{name} is RVL, which is not supported; set the publisher's parameter "
            "...compressedDepth.format to png, or this node's depth_transport to raw."
        )
    encoded = bytes(data)
    png = encoded[PREFIX.size :]
    if encoding not in DEPTH_ENCODINGS or not png.startswith(PNG_START):
        raise MessageError(
            f"{name} is not supported; publish 16UC1 or 32FC1 as a PNG by image_transport's "
            "plugin compressedDepth, or set depth_transport to raw."
        )
    try:
        stored = decode_samples(png, name=name)
    except DatasetError as error:
        raise MessageError(str(error)) from None
    if stored.ndim != 2 or stored.dtype != np.uint16:
        raise MessageError(f"{name} contains {stored.dtype} {stored.shape}; expected 16-bit grey.")
    kind, usual_unit = DEPTH_ENCODINGS[encoding]
    samples = stored.astype(np.float32)
    if kind is np.float32:
        quantization, a, b = PREFIX.unpack_from(encoded)
        if quantization != 0 or not (math.isfinite(a) and math.isfinite(b)):
            raise MessageError(f"{name} is not quantized by inverse depth: its prefix is damaged.")
        with np.errstate(all="ignore"):
            samples = np.float32(a) / (samples - np.float32(b))
        samples[stored == 0] = np.nan
    return _in_metres(samples, unit or usual_unit, longest)


def _in_metres(samples: np.ndarray, unit: float, longest: float) -> np.ndarray:
    """Scale float32 samples in place, and set invalid depths to NaN."""
    samples *= np.float32(unit)
    samples[~((samples > 0) & (samples < np.inf) & (samples <= longest))] = np.nan
    return samples


def metres_of(message: Any, *, unit: float = 0.0, longest: float = math.inf) -> np.ndarray:
    """Return a depth image as (H, W) float32 metres; see `runtime.depth.images`.

    Args:
        message: a sensor_msgs/Image, or a CompressedImage of the plugin compressedDepth.
        unit: metres per unit; 0 for that of the encoding.
        longest: metres above which a depth is unknown.

    Raises:
        MessageError: it cannot be read.
    """
    if not hasattr(message, "encoding"):
        return compressed_depth_in_metres(message.data, message.format, unit=unit, longest=longest)
    return depth_in_metres(**image_fields(message), unit=unit, longest=longest)


def intrinsics_of(info: Any, *, rectified: bool) -> Intrinsics:
    """Return the intrinsics of the rectified images (p) or of the raw images (k and d).

    Args:
        info: a sensor_msgs/CameraInfo.
        rectified: whether the images are rectified.
    """
    size = info.height, info.width
    if rectified:
        p = [float(value) for value in info.p]
        return Intrinsics(size, (*p[0:3], *p[4:7], *p[8:11]))
    return Intrinsics(
        size,
        tuple(float(value) for value in info.k),
        info.distortion_model,
        tuple(float(value) for value in info.d),
    )
