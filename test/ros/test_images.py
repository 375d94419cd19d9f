from __future__ import annotations

import array
import importlib.util

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from yolact_ros.errors import MessageError
from yolact_ros.ros.messages import images
from yolact_ros.ros.messages.images import bgr_from_message, message_from_bgr

# For each encoding, where the bytes of a pixel hold blue, green and red.
BGR_PLACES = {
    "bgr8": (0, 1, 2),
    "8UC3": (0, 1, 2),
    "rgb8": (2, 1, 0),
    "bgra8": (0, 1, 2),
    "rgba8": (2, 1, 0),
    "mono8": (0, 0, 0),
    "8UC1": (0, 0, 0),
}
CHANNELS = {"bgr8": 3, "8UC3": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1, "8UC1": 1}


def image_message(encoding: str, *, height=3, width=5, padding=0, channels=None) -> Image:
    step = width * (channels or CHANNELS[encoding]) + padding
    data = np.random.default_rng(0).integers(0, 256, step * height, np.uint8)
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.data = array.array("B", data.tobytes())
    return message


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("encoding", BGR_PLACES)
def test_pixels_are_those_that_a_loop_over_the_bytes_finds(encoding, padding):
    message = image_message(encoding, padding=padding)
    pixels = bgr_from_message(message)
    assert pixels.shape == (3, 5, 3) and pixels.dtype == np.uint8
    for y in range(3):
        for x in range(5):
            start = y * message.step + x * CHANNELS[encoding]
            expected = [message.data[start + place] for place in BGR_PLACES[encoding]]
            assert pixels[y, x].tolist() == expected


@pytest.mark.parametrize("encoding", BGR_PLACES)
def test_an_image_of_one_pixel_is_read(encoding):
    assert bgr_from_message(image_message(encoding, height=1, width=1)).shape == (1, 1, 3)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "", "BGR8"])
def test_another_encoding_is_refused_with_the_supported_ones(encoding):
    with pytest.raises(MessageError, match="bgr8, 8UC3, rgb8, bgra8, rgba8, mono8, 8UC1") as error:
        bgr_from_message(image_message(encoding, channels=3))
    assert repr(encoding) in str(error.value)


def test_data_shorter_than_the_rows_is_refused():
    message = image_message("bgr8")
    message.data = message.data[:-1]
    with pytest.raises(MessageError, match="44 bytes of data.*need 45"):
        bgr_from_message(message)


def test_a_step_shorter_than_a_row_is_refused():
    message = image_message("rgba8")
    message.step = 19
    with pytest.raises(MessageError, match="step is 19 bytes.*5 pixels in rgba8 has 20"):
        bgr_from_message(message)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (3, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(height, width):
    with pytest.raises(MessageError, match="is empty"):
        bgr_from_message(image_message("bgr8", height=height, width=width))


def test_data_longer_than_the_rows_is_ignored():
    message = image_message("bgr8")
    expected = bgr_from_message(message).copy()
    message.data.frombytes(b"more")
    assert np.array_equal(bgr_from_message(message), expected)


@pytest.mark.parametrize("view", ["whole", "mirrored", "every other row"])
def test_an_image_survives_serialization(view):
    image = np.random.default_rng(1).integers(0, 256, (6, 7, 3), np.uint8)
    image = {"whole": image, "mirrored": image[:, ::-1], "every other row": image[::2]}[view]
    header = Header(frame_id="camera")
    header.stamp.sec, header.stamp.nanosec = 12, 34
    received = deserialize_message(serialize_message(message_from_bgr(image, header)), Image)
    assert received.header == header and received.encoding == "bgr8"
    assert np.array_equal(bgr_from_message(received), image)


def test_a_compressed_image_is_decoded():
    image = np.random.default_rng(2).integers(0, 256, (6, 7, 3), np.uint8)
    message = CompressedImage(format="bgr8; png compressed bgr8")
    message.data.frombytes(cv2.imencode(".png", image)[1].tobytes())
    received = deserialize_message(serialize_message(message), CompressedImage)
    assert np.array_equal(bgr_from_message(received), image)


class WideBridge:
    """Replaces a cv_bridge with one more encoding, because the real one is a C++ extension."""

    def imgmsg_to_cv2(self, message, encoding):
        assert encoding == "bgr8"
        if message.encoding == "16UC3":
            high = np.frombuffer(bytes(message.data), "<u2") >> 8
            return high.astype(np.uint8).reshape(message.height, message.width, 3)
        if message.encoding == "32FC3":
            return np.zeros((message.height, message.width, 3), np.float32)
        raise TypeError(f"[{message.encoding}] is not a color format")


def test_cv_bridge_converts_the_other_encodings(monkeypatch):
    monkeypatch.setattr(images, "_cv_bridge", WideBridge)
    message = image_message("16UC3", channels=6)
    expected = np.frombuffer(bytes(message.data), np.uint8)[1::2].reshape(3, 5, 3)
    assert np.array_equal(bgr_from_message(message), expected)


@pytest.mark.parametrize(
    ("encoding", "message"), [("16UC1", "is not a color format"), ("32FC3", "it returned float32")]
)
def test_what_cv_bridge_cannot_do_is_refused_with_its_message(monkeypatch, encoding, message):
    monkeypatch.setattr(images, "_cv_bridge", WideBridge)
    with pytest.raises(MessageError, match=f"(?s){message}.*bgr8, 8UC3, rgb8"):
        bgr_from_message(image_message(encoding, channels=12))


# PyPI's cv-bridge, which is pure Python, has these. From OpenCV 5 on it miscounts channels, so
# that only its table of conversions can be asked there.
CV_BRIDGE = ["bgr8", "rgb8", "bgra8", "rgba8", "mono8", "yuv422"]
CV_BRIDGE += ["bayer_rggb8", "bayer_bggr8", "bayer_gbrg8"]


@pytest.mark.skipif(not importlib.util.find_spec("cv_bridge"), reason="cv_bridge is not installed")
@pytest.mark.parametrize("encoding", CV_BRIDGE)
def test_conversions_equal_those_of_cv_bridge(encoding):
    table = pytest.importorskip("cv_bridge.boost.cv_bridge_boost", reason="another cv_bridge")
    channels = {"yuv422": 2}.get(encoding) or CHANNELS.get(encoding, 1)
    message = image_message(encoding, height=6, width=8, channels=channels)
    shape = (6, 8, channels) if channels > 1 else (6, 8)
    samples = np.frombuffer(bytes(message.data), np.uint8).reshape(shape)
    expected = table.cvtColor2(samples, encoding, "bgr8")
    assert np.array_equal(bgr_from_message(message), expected)
    if channels == 1 or int(cv2.__version__.split(".")[0]) < 5:
        from cv_bridge import CvBridge

        assert np.array_equal(CvBridge().imgmsg_to_cv2(message, "bgr8"), expected)
