"""Convert `sensor_msgs` images to arrays and back."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from yolact_ros.errors import MessageError
from yolact_ros.runtime.images.decoding import DEFAULT_MEGAPIXELS
from yolact_ros.runtime.images.encodings import ENCODINGS, bgr_of, check_rows


def bgr_from_message(
    message: Image | CompressedImage, *, max_megapixels: float = DEFAULT_MEGAPIXELS
) -> np.ndarray:
    """Return the pixels of an image message.

    Args:
        message: a raw image in one of `runtime.images.encodings.ENCODINGS` or in another encoding
            that an installed cv_bridge converts to bgr8; or a compressed image, JPEG or PNG.
        max_megapixels: largest compressed image that is decoded, in millions of pixels.

    Returns:
        (H, W, 3) uint8 BGR. For bgr8 and 8UC3, a view of the message's memory with its row stride.

    Raises:
        MessageError: the encoding is not supported, or the message is inconsistent.
    """
    if isinstance(message, Image) and message.encoding not in ENCODINGS:
        if (bridge := _cv_bridge()) is not None:
            return _bgr_by_cv_bridge(message, bridge)
    return bgr_of(message, limit=int(max_megapixels * 1e6))


def _bgr_by_cv_bridge(message: Image, bridge: Any) -> np.ndarray:
    """Convert by cv_bridge; raise `MessageError` if it rejects the image or fails."""
    height, width = message.height, message.width
    check_rows(len(message.data), message.step, height=height, width=width)
    try:
        image = bridge.imgmsg_to_cv2(message, "bgr8")
    except Exception as error:  # noqa: BLE001 - it raises whatever numpy, OpenCV and boost raise
        reason = f"{type(error).__name__}: {error}"
    else:
        if image.shape == (height, width, 3) and image.dtype == np.uint8:
            return np.asarray(image)
        reason = f"it returned {image.dtype} of shape {image.shape}"
    raise MessageError(
        f"Image encoding {message.encoding!r} is not supported, and cv_bridge does not convert it "
        f"to bgr8 ({reason}); publish the image as one of: {', '.join(ENCODINGS)}."
    )


@cache
def _cv_bridge() -> Any | None:
    """Return cv_bridge's converter; None if it is absent or broken, as old ones are on numpy 2."""
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception:  # noqa: BLE001 - ImportError, AttributeError, RuntimeError: all seen
        return None


def message_from_labels(labels: np.ndarray, header: Header) -> Image:
    """Build a mono8 or mono16 image message.

    Args:
        labels: (H, W) uint8 or uint16.
        header: header of the message, used as is.
    """
    height, width = labels.shape
    size = labels.dtype.itemsize
    message = Image(header=header, height=height, width=width, step=width * size)
    message.encoding = f"mono{8 * size}"
    message.is_bigendian = int(sys.byteorder == "big")
    message.data.frombytes(np.ascontiguousarray(labels).data.cast("B"))
    return message


def message_from_bgr(image: np.ndarray, header: Header) -> Image:
    """Build a bgr8 image message.

    Args:
        image: (H, W, 3) uint8 BGR.
        header: header of the message, used as is.
    """
    height, width, _ = image.shape
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    # One memory copy; assigning bytes or an array checks each element (up to 100 ms per image).
    message.data.frombytes(np.ascontiguousarray(image).data)
    return message
