from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolact_ros.errors import MessageError
from yolact_ros.runtime.images.encodings import bgr_from_compressed


def smooth_image() -> np.ndarray:
    """Return (40, 60, 3) uint8 BGR that JPEG hardly changes: two linear gradients."""
    image = np.full((40, 60, 3), 60, np.uint8)
    image[..., 0] += np.arange(60, dtype=np.uint8)
    image[..., 2] += np.arange(40, dtype=np.uint8)[:, None]
    return image


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize(
    "form", ["jpeg", "jpg", "bgr8; jpeg compressed bgr8", "jpeg compressed", ""]
)
def test_jpeg_is_read_under_every_format_name_of_drivers(form):
    found = bgr_from_compressed(encode(smooth_image(), ".jpg"), form)
    # The loss of JPEG at OpenCV's quality of 95; red and blue exchanged would differ by 60.
    assert np.abs(found.astype(int) - smooth_image()).max() <= 6


@pytest.mark.parametrize("form", ["png", "bgr8; png compressed bgr8", "rgb8; png compressed bgr8"])
def test_png_is_lossless(form):
    assert np.array_equal(bgr_from_compressed(encode(smooth_image()), form), smooth_image())


def test_red_and_blue_are_exchanged_if_the_file_was_stored_so():
    stored = encode(smooth_image()[..., ::-1])
    assert np.array_equal(bgr_from_compressed(stored, "rgb8; png compressed rgb8"), smooth_image())


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_grey_image_becomes_three_equal_channels(suffix):
    grey = smooth_image()[..., 0]
    found = bgr_from_compressed(encode(grey, suffix), "mono8; png compressed ")
    assert np.abs(found.astype(int) - grey[..., None]).max() <= 3


def test_16_bits_become_8():
    grey = np.array([[0, 257, 65535]], np.uint16)
    found = bgr_from_compressed(encode(grey), "mono16; png compressed ")
    assert found.tolist() == [[[0, 0, 0], [1, 1, 1], [255, 255, 255]]]


def test_a_mosaic_of_16_bits_equals_that_of_its_high_bytes():
    levels = np.random.default_rng(3).integers(0, 256, (6, 8), np.uint8)
    wide = bgr_from_compressed(
        encode(levels.astype(np.uint16) * 257), "bayer_rggb16; png compressed "
    )
    assert np.array_equal(
        wide, bgr_from_compressed(encode(levels), "bayer_rggb8; png compressed ")
    )


@pytest.mark.parametrize("form", ["h264", "H265", "hevc"])
def test_a_video_stream_is_refused_with_a_remedy(form):
    with pytest.raises(MessageError, match="video stream.*republish"):
        bgr_from_compressed(b"\x00\x00\x00\x01", form)


def test_an_alpha_channel_is_left_out():
    image = np.dstack([smooth_image(), np.zeros((40, 60), np.uint8)])
    assert np.array_equal(bgr_from_compressed(encode(image), "png"), smooth_image())


def test_a_mosaic_is_converted_to_colours():
    mosaic = np.tile(np.array([[220, 120], [120, 30]], np.uint8), (4, 4))
    found = bgr_from_compressed(encode(mosaic), "bayer_rggb8; png compressed ")
    assert (found == [30, 120, 220]).all()


def test_an_image_of_one_pixel_is_read():
    assert bgr_from_compressed(encode(np.uint8([[[1, 2, 3]]])), "png").tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("padding", [b"", b"\0" * 100, b"more"])
def test_bytes_after_the_end_of_a_jpeg_do_not_matter(padding):
    data = encode(smooth_image(), ".jpg")
    expected = bgr_from_compressed(data, "jpeg")
    assert np.array_equal(bgr_from_compressed(data + padding, "jpeg"), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_that_ends_early_is_refused(suffix):
    data = encode(smooth_image(), suffix)
    for length in range(8, len(data) - 12, 97):
        with pytest.raises(MessageError, match="is truncated|is damaged|first bytes are damaged"):
            bgr_from_compressed(data[:length], "")


@pytest.mark.parametrize(
    ("data", "form", "message"),
    [
        (b"", "jpeg", "neither JPEG nor PNG"),
        (b"\0" * 12 + b"\x89PNG\r\n\x1a\n", "16UC1; compressedDepth png", "is a depth format"),
    ],
)
def test_other_data_are_rejected_with_a_message(data, form, message):
    with pytest.raises(MessageError, match=message):
        bgr_from_compressed(data, form)


def test_damaged_files_give_an_image_or_an_error_message():
    rng = np.random.default_rng(3)
    files = [encode(smooth_image(), ".jpg"), encode(smooth_image(), ".png")]
    refused = 0
    for number in range(200):
        data = np.frombuffer(files[number % 2], np.uint8).copy()
        places = rng.integers(0, len(data), int(rng.integers(1, 20)))
        data[places] = rng.integers(0, 256, len(places))
        try:
            found = bgr_from_compressed(data.tobytes(), "jpeg")
        except MessageError as error:
            refused += 1
            assert str(error).endswith(".")
        else:
            assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
    assert refused > 50
