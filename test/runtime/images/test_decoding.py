from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from yolact_ros.errors import ConfigError, DatasetError
from yolact_ros.runtime.images.decoding import decode_bgr, decode_samples, read_bgr
from yolact_ros.runtime.images.headers import read_header
from yolact_ros.runtime.shipped import shipped_file


def noisy_image(height: int = 60, width: int = 80) -> np.ndarray:
    """Return (H, W, 3) uint8 BGR with detail everywhere, which makes its JPEG large."""
    coarse = np.random.default_rng(5).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def with_orientation(jpeg: bytes, value: int) -> bytes:
    """Insert an EXIF segment of one entry into a JPEG."""
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 3, 1, value) + bytes(4)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".webp", ".ppm"])
def test_header_and_pixels_equal_those_of_opencv(suffix):
    data = encode(noisy_image(60, 84), suffix)
    header = read_header(data)
    assert (header.height, header.width, header.orientation) == (60, 84, 1)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decode_bgr(data), expected)


@pytest.mark.parametrize("value", range(1, 9))
def test_a_jpeg_is_rotated_as_by_opencv(value):
    data = with_orientation(encode(noisy_image(), ".jpg"), value)
    assert read_header(data).orientation == value
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(decode_bgr(data), expected)
    assert decode_samples(data).shape == (60, 80, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_grey_and_16_bits_keep_their_samples(suffix):
    grey = noisy_image()[..., 0]
    assert decode_samples(encode(grey, suffix)).shape == (60, 80)
    assert decode_bgr(encode(grey, suffix)).shape == (60, 80, 3)
    deep = np.array([[0, 1500, 65535]], np.uint16)
    assert decode_samples(encode(deep, ".png")).tolist() == deep.tolist()


def damaged(data: bytes, kind: str, random: np.random.Generator) -> bytes:
    """Return a JPEG with intact markers and a damaged scan."""
    start, end = data.rfind(b"\xff\xda") + 14, len(data) - 2
    place = int(random.integers(start, end - 50))
    length = int(random.integers(20, 400))
    if kind == "hole":
        return data[:place] + data[min(place + length, end) :]
    if kind == "zeros":
        stop = min(place + length, end)
        return data[:place] + bytes(stop - place) + data[stop:]
    return data[:place] + b"\xff\xd9"


@pytest.mark.parametrize(("kind", "least"), [("hole", 90), ("zeros", 75), ("cut", 100)])
def test_damaged_baseline_jpegs_are_refused(kind, least):
    # Measured before OpenCV's decoder was replaced: it takes all 100 of each kind.
    random = np.random.default_rng(2)
    clip = cv2.VideoCapture(str(shipped_file(Path("models") / "demo" / "tabletop.mp4")))
    picture = clip.read()[1]
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    refused = 0
    for _ in range(100):
        try:
            decode_bgr(damaged(data, kind, random))
        except DatasetError as error:
            refused += 1
            assert str(error).startswith("The image ") and str(error).endswith(".")
    assert refused >= least


@pytest.mark.parametrize("padding", [b"\0", b"\0\0\0\0", b"\xff" * 3])
def test_padding_before_the_end_marker_is_accepted(padding):
    data = encode(noisy_image(), ".jpg")
    padded = data[:-2] + padding + data[-2:]
    assert np.array_equal(decode_bgr(padded), decode_bgr(data))


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that states a size and has hardly any data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_decompression_bomb_is_refused_by_its_header():
    started = time.perf_counter()
    with pytest.raises(DatasetError, match=r"30000x30000 pixels, but the limit is 64 million"):
        decode_bgr(png_of(30000, 30000))
    assert time.perf_counter() - started < 0.1


def test_the_limit_comes_from_the_environment_or_an_argument(monkeypatch):
    data = encode(noisy_image(), ".png")
    with pytest.raises(DatasetError, match="80x60 pixels"):
        decode_bgr(data, limit=4799)
    assert decode_bgr(data, limit=4800).shape == (60, 80, 3)
    monkeypatch.setenv("YOLACT_MAX_MEGAPIXELS", "0.001")
    with pytest.raises(DatasetError, match="80x60 pixels"):
        decode_bgr(data)
    monkeypatch.setenv("YOLACT_MAX_MEGAPIXELS", "nan")
    with pytest.raises(ConfigError, match="YOLACT_MAX_MEGAPIXELS"):
        decode_bgr(data)


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    path.write_bytes(encode(noisy_image(), ".png"))
    assert read_bgr(path).shape == (60, 80, 3)


def test_what_is_not_a_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(30 << 30)
    for name, reason in [
        ("fifo.png", "not a regular file"),
        ("sparse.png", "bytes; expected at most"),
        ("none.png", "does not exist"),
        (".", "directory"),
        (f"{'n' * 300}.png", "File name too long"),
        ("nul\0.png", "cannot be read"),
    ]:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(DatasetError, match=reason):
            read_bgr(tmp_path / name)
        assert os.listdir("/proc/self/fd") == before, name


def test_random_bytes_after_every_signature_are_reported():
    random = np.random.default_rng(1)
    starts = [encode(noisy_image(), s) for s in (".jpg", ".png", ".bmp", ".tiff", ".webp", ".ppm")]
    refused = 0
    for number in range(600):
        data = bytearray(starts[number % len(starts)])
        for place in random.integers(0, min(len(data), 200), 5):
            data[place] = random.integers(256)
        try:
            decode_bgr(bytes(data[: random.integers(0, len(data) + 1)]))
        except DatasetError as error:
            refused += 1
            assert str(error).endswith(".")
    assert refused > 300
