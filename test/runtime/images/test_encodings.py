from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.errors import MessageError
from yolact_ros.runtime.images.encodings import ENCODINGS, bgr_from_samples

PACKED = {"bgr8": 3, "8UC3": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1, "8UC1": 1}
BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
# Where each sample of four bytes, or of two pixels, lies.
YUV422 = {"yuv422": "UYVY", "uyvy": "UYVY", "yuv422_yuy2": "YUYV", "yuyv": "YUYV"}
NV = {"nv12": "UV", "nv21": "VU"}


def bgr_by_hand(y: int, u: int, v: int) -> np.ndarray:
    """Convert one sample by ITU-R BT.601 with brightness 16 to 235."""
    luma = 1.164 * (y - 16)
    blue = luma + 2.018 * (u - 128)
    green = luma - 0.813 * (v - 128) - 0.391 * (u - 128)
    red = luma + 1.596 * (v - 128)
    return np.clip(np.array([blue, green, red]), 0, 255)


def padded(rows: np.ndarray, padding: int) -> tuple[bytes, int]:
    """Return (h, bytes) uint8 rows, each padded with other bytes, and their step."""
    tail = np.full((len(rows), padding), 0xA5, np.uint8)
    return np.concatenate([rows, tail], axis=1).tobytes(), rows.shape[1] + padding


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("encoding", YUV422)
def test_yuv422_gives_the_colours_of_the_formula(encoding, padding):
    samples = np.random.default_rng(0).integers(40, 210, (3, 2, 4), np.uint8)
    order = YUV422[encoding]
    data, step = padded(samples.reshape(3, 8), padding)
    found = bgr_from_samples(data, encoding, height=3, width=4, step=step)
    for row in range(3):
        for x in range(4):
            four = samples[row, x // 2]
            y = four[[i for i, name in enumerate(order) if name == "Y"][x % 2]]
            expected = bgr_by_hand(
                int(y), int(four[order.index("U")]), int(four[order.index("V")])
            )
            # OpenCV computes with 20 fractional bits and coefficients of three digits.
            assert np.abs(found[row, x] - expected).max() <= 1.5


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("encoding", NV)
def test_nv12_and_nv21_give_the_colours_of_the_formula(encoding, padding):
    height, width = 4, 6
    rng = np.random.default_rng(1)
    brightness = rng.integers(40, 210, (height, width), np.uint8)
    colour = rng.integers(60, 200, (height // 2, width // 2, 2), np.uint8)
    rows = np.concatenate([brightness, colour.reshape(height // 2, width)])
    data, step = padded(rows, padding)
    found = bgr_from_samples(data, encoding, height=height, width=width, step=step)
    assert found.shape == (height, width, 3)
    for row in range(height):
        for x in range(width):
            pair = dict(zip(NV[encoding], colour[row // 2, x // 2].tolist(), strict=True))
            expected = bgr_by_hand(int(brightness[row, x]), pair["U"], pair["V"])
            assert np.abs(found[row, x] - expected).max() <= 1.5


@pytest.mark.parametrize("encoding", BAYER)
def test_a_mosaic_of_one_colour_gives_that_colour_everywhere(encoding):
    colour = {"b": 30, "g": 120, "r": 220}
    pattern = np.array(
        [[colour[name] for name in encoding[6:8]], [colour[n] for n in encoding[8:10]]]
    )
    mosaic = np.tile(pattern, (3, 4)).astype(np.uint8)
    found = bgr_from_samples(mosaic.tobytes(), encoding, height=6, width=8, step=8)
    assert (found == [30, 120, 220]).all()


@pytest.mark.parametrize("encoding", BAYER)
def test_a_red_sample_of_a_mosaic_yields_red_pixels_at_its_position(encoding):
    letters = np.array([list(encoding[6:8]), list(encoding[8:10])])
    row, column = np.argwhere(letters == "r")[0] + 4
    mosaic = np.zeros((10, 10), np.uint8)
    mosaic[row, column] = 200
    found = bgr_from_samples(mosaic.tobytes(), encoding, height=10, width=10, step=10)
    assert found[row, column].tolist() == [0, 0, 200]
    assert not found[..., :2].any()
    red_rows, red_columns = np.nonzero(found[..., 2])
    assert np.abs(red_rows - row).max() == np.abs(red_columns - column).max() == 1


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_mono16_is_scaled_to_eight_bits(padding):
    values = np.array([[0, 257, 514, 128 * 257], [65535, 254 * 257, 1, 65534]], "<u2")
    data, step = padded(values.view(np.uint8), padding)
    found = bgr_from_samples(data, "mono16", height=2, width=4, step=step)
    expected = [[0, 1, 2, 128], [255, 254, 0, 255]]
    assert found.dtype == np.uint8
    assert all(found[..., channel].tolist() == expected for channel in range(3))


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("wide", "narrow", "channels"),
    [("rgb16", "rgb8", 3), ("bgr16", "bgr8", 3)]
    + [(f"bayer_{p}16", f"bayer_{p}8", 1) for p in ("rggb", "bggr", "gbrg", "grbg")],
)
def test_16_bits_equal_8_bits_of_their_high_bytes(wide, narrow, channels, padding):
    levels = np.random.default_rng(3).integers(0, 256, (6, 8 * channels), np.uint8)
    data, step = padded((levels.astype("<u2") * 257).view(np.uint8), padding)
    found = bgr_from_samples(data, wide, height=6, width=8, step=step)
    expected = bgr_from_samples(levels.tobytes(), narrow, height=6, width=8, step=levels.shape[1])
    assert np.array_equal(found, expected)


def test_big_endian_samples_of_16_bits_are_refused():
    with pytest.raises(MessageError, match="flagged as big-endian; mono16 .* little-endian"):
        bgr_from_samples(bytes(8), "mono16", height=2, width=2, step=4, is_bigendian=True)


@pytest.mark.parametrize("encoding", PACKED)
def test_the_byte_order_has_no_meaning_for_single_bytes(encoding):
    data = bytes(range(4 * 4 * 2))
    size = {"height": 2, "width": 4, "step": 16}
    flagged = bgr_from_samples(data, encoding, is_bigendian=True, **size)
    assert np.array_equal(flagged, bgr_from_samples(data, encoding, **size))


@pytest.mark.parametrize(
    ("encoding", "height", "width", "message"),
    [
        ("yuv422", 2, 3, "3x2 pixels; yuv422 requires an even width"),
        ("nv12", 2, 3, "3x2 pixels; nv12 requires an even width and height"),
        ("nv21", 3, 2, "2x3 pixels; nv21 requires an even width and height"),
        ("bayer_rggb8", 2, 8, "8x2 pixels; bayer_rggb8 requires at least 3x3"),
        ("nv12", 0, 2, "is empty: 2x0"),
    ],
)
def test_a_size_that_an_encoding_cannot_have_is_refused(encoding, height, width, message):
    with pytest.raises(MessageError, match=message):
        bgr_from_samples(bytes(1000), encoding, height=height, width=width, step=16)


def test_nv12_without_its_colour_rows_is_refused():
    with pytest.raises(MessageError, match="16 bytes of data; its 6 rows of 4 bytes need 24"):
        bgr_from_samples(bytes(16), "nv12", height=4, width=4, step=4)


def spoil(image: dict, rng: np.random.Generator) -> dict:
    """Introduce one fault into an image message."""
    choice = int(rng.integers(6))
    if choice == 0:
        return image | {"data": image["data"][: int(rng.integers(len(image["data"])))]}
    if choice == 1:
        step = ENCODINGS[image["encoding"]].channels * image["width"] - 1
        return image | {"step": int(rng.integers(step + 1))}
    if choice == 2:
        return image | {str(rng.choice(["width", "height"])): 0}
    if choice == 3:
        return image | {
            str(rng.choice(["width", "height", "step"])): int(rng.integers(2**20, 2**32))
        }
    if choice == 4:
        letters = rng.integers(0x20, 0x2FFF, int(rng.integers(12)))
        return image | {"encoding": "".join(map(chr, letters))}
    return image | {"encoding": "mono16", "is_bigendian": True}


def test_a_thousand_malformed_images_each_give_an_error_message():
    rng = np.random.default_rng(7)
    for _ in range(1000):
        encoding = str(rng.choice(list(ENCODINGS)))
        layout = ENCODINGS[encoding]
        height, width = (int(n) for n in 2 * rng.integers(2, 9, 2))
        step = width * layout.channels * layout.sample_bytes + int(rng.integers(4))
        data = rng.bytes(step * (height + layout.half_planes * height // 2))
        image = {"data": data, "encoding": encoding, "height": height, "width": width}
        image |= {"step": step}
        assert bgr_from_samples(**image).shape == (height, width, 3)
        with pytest.raises(MessageError, match=r"\w+ .+\.$"):
            bgr_from_samples(**spoil(image, rng))


def test_random_sizes_steps_and_lengths_give_an_image_or_an_error():
    rng = np.random.default_rng(8)
    images = 0
    for _ in range(1000):
        size = {name: int(rng.integers(0, 9)) for name in ("height", "width")}
        size["step"] = int(rng.integers(0, 40))
        data, flag = rng.bytes(int(rng.integers(0, 400))), bool(rng.integers(2))
        encoding = str(rng.choice(list(ENCODINGS)))
        try:
            found = bgr_from_samples(data, encoding, is_bigendian=flag, **size)
        except MessageError:
            continue
        images += 1
        assert found.shape == (size["height"], size["width"], 3) and found.dtype == np.uint8
    assert images > 50


@pytest.mark.parametrize("encoding", ["rgb8", "rgba8", "bgr8", "bgra8"])
def test_one_pixel_keeps_its_colours(encoding):
    """OpenCV 4.5.4 (Ubuntu 22.04) mistakes one pixel of three channels for a row."""
    data = bytes([1, 2, 3, 4])
    found = bgr_from_samples(data, encoding, height=1, width=1, step=4)
    assert found.tolist() == [[[1, 2, 3]] if encoding.startswith("bgr") else [[3, 2, 1]]]
