"""Depth images match hand numbers and an encoder that follows image_transport's formula."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from yolact_ros.errors import MessageError
from yolact_ros.runtime.depth.images import compressed_depth_in_metres, depth_in_metres


def read(stored: np.ndarray, encoding: str, *, pad: int = 0, is_bigendian: bool = False):
    order = ">" if is_bigendian else "<"
    stored = stored.astype(stored.dtype.newbyteorder(order))
    rows = b"".join(row.tobytes() + b"\xff" * pad for row in stored)
    height, width = stored.shape
    return depth_in_metres(
        rows,
        encoding,
        height=height,
        width=width,
        step=width * stored.itemsize + pad,
        is_bigendian=is_bigendian,
    )


@pytest.mark.parametrize("is_bigendian", [False, True])
@pytest.mark.parametrize("pad", [0, 6])
def test_the_encoding_determines_the_unit(pad, is_bigendian):
    metres = [[0.5, 1.25, np.nan], [65.535, np.nan, 2.0]]
    millimetres = np.array([[500, 1250, 0], [65535, 0, 2000]], np.uint16)
    floats = np.array([[0.5, 1.25, np.inf], [65.535, -1, 2.0]], np.float32)
    for encoding, stored in {"16UC1": millimetres, "mono16": millimetres, "32FC1": floats}.items():
        found = read(stored, encoding, pad=pad, is_bigendian=is_bigendian)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, metres, rtol=1e-6)


def test_depths_beyond_the_limit_are_unknown_and_the_unit_can_be_given():
    largest = np.finfo(np.float32).max
    stored = np.array([[0.5, 99.5, 100.5, largest, -largest, 1e37]], np.float32)
    good = {"height": 1, "width": 6, "step": 24, "is_bigendian": False}
    found = depth_in_metres(stored.tobytes(), "32FC1", longest=100.0, **good)
    np.testing.assert_allclose(found, [[0.5, 99.5] + [np.nan] * 4])
    millimetres = np.array([[500, 1500, 99500, 100500, 0, np.nan]], np.float32)
    found = depth_in_metres(millimetres.tobytes(), "32FC1", longest=100.0, unit=0.001, **good)
    np.testing.assert_allclose(found, [[0.5, 1.5, 99.5, np.nan, np.nan, np.nan]], rtol=1e-6)
    quarters = np.array([[4000]], np.uint16).tobytes()
    found = depth_in_metres(
        quarters, "16UC1", height=1, width=1, step=2, is_bigendian=False, unit=0.00025
    )
    assert found.tolist() == [[1.0]]


def test_bad_depth_images_are_reported():
    with pytest.raises(MessageError, match="16UC1 .millimetres. or 32FC1 .metres."):
        read(np.zeros((2, 2), np.uint8), "8UC1")
    good = {"height": 2, "width": 3, "is_bigendian": False}
    with pytest.raises(MessageError, match="need 12"):
        depth_in_metres(b"12345", "16UC1", step=6, **good)
    with pytest.raises(MessageError, match="a row of 3 pixels in 32FC1 has 12"):
        depth_in_metres(bytes(12), "32FC1", step=6, **good)
    with pytest.raises(MessageError, match="empty"):
        depth_in_metres(b"", "16UC1", height=0, width=0, step=0, is_bigendian=False)


def compress(samples: np.ndarray, prefix: tuple[int, float, float] = (0, 0.0, 0.0)) -> bytes:
    """Encode an image with the prefix of compressedDepth and a PNG."""
    return struct.pack("<iff", *prefix) + cv2.imencode(".png", samples)[1].tobytes()


@pytest.mark.parametrize("form", ["16UC1; compressedDepth", "mono16;compressedDepth png"])
def test_compressed_integers_are_millimetres(form):
    stored = np.array([[500, 1250, 0], [65535, 0, 2000]], np.uint16)
    found = compressed_depth_in_metres(compress(stored), form)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, read(stored, "16UC1"))
    found = compressed_depth_in_metres(np.frombuffer(compress(stored), np.uint8), form, longest=2)
    np.testing.assert_array_equal(found, np.float32([[0.5, 1.25, np.nan], [np.nan, np.nan, 2]]))


def test_compressed_floats_are_quantized_by_inverse_depth():
    """The defaults of depth_image_transport are quantization 100 and largest depth 10 m."""
    a = 100.0 * 101.0
    b = 1.0 - a / 10.0
    metres = [[0.5, 1.25, np.nan], [9.9, 12.0, 2.0]]
    stored = [[int(a / z + b) if z < 10.0 else 0 for z in row] for row in metres]
    data = compress(np.array(stored, np.uint16), (0, a, b))
    found = compressed_depth_in_metres(data, "32FC1; compressedDepth png")
    assert found.dtype == np.float32 and np.isnan(found[[0, 1], [2, 1]]).all()
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 2)):
        z = metres[row][column]
        assert z <= found[row, column] < z + 1.01 * z * z / a + 1e-5  # one level of 1 / z


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("quantization", [(0.0, 0.0), (0.0, 7.0), (-5.0, 1.0), (3e38, 6.9999995)])
def test_a_meaningless_quantization_yields_no_depth_or_a_finite_one(quantization):
    data = compress(np.array([[7, 0, 65535]], np.uint16), (0, *quantization))
    found = compressed_depth_in_metres(data, "32FC1; compressedDepth")
    assert not np.isinf(found).any() and not (found <= 0).any()


PNG = compress(np.array([[7, 0]], np.uint16))


@pytest.mark.parametrize(
    "data, form, message",
    [
        (PNG, "16UC1; compressedDepth rvl", "is RVL, which is not supported; .* png"),
        (PNG, "8UC1; compressedDepth png", "publish 16UC1 or 32FC1"),
        (PNG, "", "publish 16UC1 or 32FC1"),
        (PNG[12:], "16UC1; compressedDepth png", "publish 16UC1"),
        (b"", "16UC1; compressedDepth png", "publish 16UC1"),
        (PNG[:11], "32FC1; compressedDepth png", "publish 16UC1"),
        (PNG[:-20], "16UC1; compressedDepth png", "is truncated"),
        (compress(np.zeros((2, 2), np.uint8)), "16UC1; compressedDepth", "expected 16-bit grey"),
        (compress(np.zeros((2, 2, 3), np.uint16)), "16UC1; compressedDepth", "16-bit grey"),
        (
            compress(np.ones((2, 2), np.uint16), (0, np.nan, 1.0)),
            *("32FC1; compressedDepth", "prefix is damaged"),
        ),
        (
            compress(np.ones((2, 2), np.uint16), (-1, 1.0, 1.0)),
            *("32FC1; compressedDepth", "prefix is damaged"),
        ),
    ],
)
def test_data_other_than_compressed_depth_is_reported(data, form, message):
    with pytest.raises(MessageError, match=message):
        compressed_depth_in_metres(data, form)
