"""Generate random image messages, valid and damaged."""

from __future__ import annotations

import random

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

# Bytes per pixel of the encodings of valid images; the last ones require even sides.
ENCODINGS = {"bgr8": 3, "rgba8": 4, "mono8": 1, "mono16": 2, "bayer_rggb8": 1, "yuv422": 2}
SIDES = (4, 48, 64, 200, 320, 480, 720)


def random_image(
    draw: random.Random, header: Header, *, good: bool
) -> tuple[Image, tuple[int, int]]:
    """Generate an image of random size and encoding, possibly with padded rows.

    Args:
        draw: source of randomness.
        header: header of the message.
        good: whether the message is valid; if not, it has one inconsistency.

    Returns:
        The message, and its height and width.
    """
    height, width = draw.choice(SIDES), draw.choice(SIDES)
    encoding = draw.choice(list(ENCODINGS))
    step = width * ENCODINGS[encoding] + 2 * draw.choice([0, 0, 0, 1, 31])
    message = Image(header=header, height=height, width=width, encoding=encoding, step=step)
    message.data.frombytes(draw.randbytes(step) * height)
    if not good:
        damage = draw.randrange(7)
        if damage == 0:
            message.data = message.data[: step * (height - 1)]
        elif damage == 1:
            message.step = draw.choice([0, 1])
        elif damage == 2:
            message.encoding = draw.choice(["", "8UC7", "bgr8\n" * 99, "mp4"])
        elif damage == 3:
            message.height = draw.choice([0, 2**32 - 1])
        elif damage == 4:
            message.width = draw.choice([0, 2**32 - 1])
        elif damage == 5:
            message.step = 2**32 - 1
        else:
            message.data = message.data[:0]
    return message, (height, width)


def random_compressed(
    draw: random.Random, header: Header, *, good: bool
) -> tuple[CompressedImage, tuple[int, int]]:
    """Generate a JPEG or PNG of random size; see `random_image`."""
    height, width = draw.choice(SIDES), draw.choice(SIDES)
    pixels = np.frombuffer(draw.randbytes(3 * width), np.uint8).reshape(1, width, 3)
    kind = draw.choice(["jpeg", "png"])
    _, encoded = cv2.imencode(f".{kind}", np.repeat(pixels, height, axis=0))
    data = encoded.tobytes()
    if not good:
        damage = draw.randrange(4)
        if damage == 0:
            data = data[: draw.randrange(len(data) * 3 // 4)]
        elif damage == 1:
            data = draw.randbytes(len(data))
        elif damage == 2:
            data = b""
        else:  # a header that claims 10^10 pixels
            _, png = cv2.imencode(".png", np.zeros((1, 1), np.uint8))
            large = (10**5).to_bytes(4, "big")
            data = png.tobytes()[:16] + large + large + png.tobytes()[24:]
    message = CompressedImage(header=header, format=f"bgr8; {kind} compressed bgr8")
    message.data.frombytes(data)
    return message, (height, width)
