from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import RegionOfInterest

from yolact_ros.errors import MessageError
from yolact_ros.msg import Instance
from yolact_ros.ros.messages.instances import mask_from_message
from yolact_ros.runtime.output import instance_array as mask_encodings
from yolact_ros.runtime.output.instance_array import MASK_ENCODINGS, encode_mask

WITH_MASK = ["bits", "mono8", "rle"]
# 2 rows of 9 pixels: a row of bits does not fill its second byte.
MASK = np.array([[1, 1, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0, 1]], bool)


def instance_with(mask: np.ndarray, encoding: str) -> Instance:
    height, width = mask.shape
    instance = Instance(
        instance_id=4,
        roi=RegionOfInterest(height=height, width=width),
        mask_encoding=MASK_ENCODINGS[encoding],
    )
    instance.mask.frombytes(encode_mask(mask, MASK_ENCODINGS[encoding]))
    return instance


def over_the_wire(instance: Instance) -> Instance:
    return deserialize_message(serialize_message(instance), Instance)


@pytest.mark.parametrize("name", ["MASK_NONE", "MASK_BITS", "MASK_MONO8", "MASK_RLE"])
def test_the_values_are_those_of_the_message(name):
    assert getattr(mask_encodings, name) == getattr(Instance, name)


def test_bits_are_as_the_message_describes_them():
    data = encode_mask(MASK, Instance.MASK_BITS)
    assert list(data) == [0b11000001, 0b10000000, 0b00000000, 0b10000000]
    for (y, x), pixel in np.ndenumerate(MASK):  # what a reader in another language does
        assert data[y * 2 + x // 8] >> (7 - x % 8) & 1 == pixel


def test_mono8_is_as_the_message_describes_it():
    first_row, second_row = [255, 255, 0, 0, 0, 0, 0, 255, 255], [0] * 8 + [255]
    assert list(encode_mask(MASK, Instance.MASK_MONO8)) == first_row + second_row


def test_run_lengths_are_as_the_message_describes_them():
    # The mask begins with a one: the first run, of zeros, is empty. Runs continue across rows.
    expected = b"".join(run.to_bytes(4, "little") for run in [0, 2, 5, 2, 8, 1])
    assert encode_mask(MASK, Instance.MASK_RLE) == expected


def test_a_message_without_a_mask_has_no_bytes_and_decoding_it_fails():
    instance = over_the_wire(instance_with(MASK, "none"))
    assert len(instance.mask) == 0
    with pytest.raises(MessageError, match="has no mask.*mask_encoding"):
        mask_from_message(instance)


@pytest.mark.parametrize("encoding", WITH_MASK)
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 8), (3, 8), (5, 9), (9, 5), (40, 33), (0, 7), (7, 0), (0, 0)]
)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_mask_survives_serialization(encoding, shape, share):
    mask = np.random.default_rng(3).random(shape) < share
    received = mask_from_message(over_the_wire(instance_with(mask, encoding)))
    assert received.dtype == bool and received.shape == shape
    assert np.array_equal(received, mask)


@pytest.mark.parametrize("encoding", WITH_MASK)
@pytest.mark.parametrize("change", [b"", b"\1", b"\1\2\3\4\5\6\7\10"])
def test_bytes_that_do_not_fit_the_region_are_refused(encoding, change):
    instance = instance_with(MASK, encoding)
    if change:
        instance.mask.frombytes(change)
    else:
        instance.mask.pop()
    with pytest.raises(MessageError, match="mask of instance 4 does not match its region of 9x2"):
        mask_from_message(instance)


def test_an_unknown_encoding_is_refused():
    instance = instance_with(MASK, "bits")
    instance.mask_encoding = 9
    with pytest.raises(MessageError, match="Mask encoding 9 is unknown"):
        mask_from_message(instance)
    with pytest.raises(ValueError, match="9"):
        encode_mask(MASK, 9)
