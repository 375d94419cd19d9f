"""Between `sensor_msgs/Image` and arrays, without cv_bridge."""

from __future__ import annotations

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from yolact_ros.errors import MessageError

# Encoding -> channels, and the OpenCV conversion to BGR (None: it is BGR already).
# OpenCV's conversions cost 0.02 ms for 640x480, a numpy copy in another channel order 1 ms.
ENCODINGS: dict[str, tuple[int, int | None]] = {
    "bgr8": (3, None),
    "8UC3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8UC1": (1, cv2.COLOR_GRAY2BGR),
}


def bgr_from_message(message: Image) -> np.ndarray:
    """Give the pixels of an image message.

    Args:
        message: an image in one of `ENCODINGS`; rows may be padded (`step`). Samples are one
            byte wide, so that `is_bigendian` has no meaning.

    Returns:
        (H, W, 3) uint8 BGR. For bgr8 and 8UC3 a view on the message's own memory, with the
        message's row stride.

    Raises:
        MessageError: the encoding is not supported, or size, step and data contradict each other.
    """
    if message.encoding not in ENCODINGS:
        raise MessageError(
            f"Image encoding {message.encoding!r} is not supported; "
            f"publish the image as one of: {', '.join(ENCODINGS)}."
        )
    channels, conversion = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise MessageError(f"The image is empty: {width}x{height} pixels.")
    if step < width * channels:
        raise MessageError(
            f"The image's step is {step} bytes; a row of {width} pixels in "
            f"{message.encoding} has {width * channels}."
        )
    if len(message.data) < step * height:
        raise MessageError(
            f"The image has {len(message.data)} bytes of data; its {height} rows of {step} bytes "
            f"need {step * height}."
        )
    pixels = np.ndarray(
        (height, width, channels), np.uint8, buffer=message.data, strides=(step, channels, 1)
    )
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def message_from_bgr(image: np.ndarray, header: Header) -> Image:
    """Make a bgr8 image message.

    Args:
        image: (H, W, 3) uint8 BGR.
        header: its header, used as it is.
    """
    height, width, _ = image.shape
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    # One copy of memory; assigning bytes or an array checks each element (up to 100 ms a frame).
    message.data.frombytes(np.ascontiguousarray(image).data)
    return message
