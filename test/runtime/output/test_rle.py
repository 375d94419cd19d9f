"""Run lengths match pycocotools and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.runtime.output.entries import compress_runs, encode_rle, mask_runs

cocotools = pytest.importorskip("pycocotools.mask")


def whole(mask, region, size):
    frame = np.zeros(size, bool)
    frame[region[1] : region[3], region[0] : region[2]] = mask
    return frame


def theirs(mask):
    rle = cocotools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("density", [0.02, 0.5, 0.98])
def test_random_crops_equal_pycocotools(seed, density):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 60, 2).tolist())
    x1, x2 = sorted(rng.integers(0, size[1] + 1, 2).tolist())
    y1, y2 = sorted(rng.integers(0, size[0] + 1, 2).tolist())
    if seed % 2:
        y1, y2 = 0, size[0]  # full columns: runs continue from one to the next
    mask = rng.random((y2 - y1, x2 - x1)) < density
    region = np.array([x1, y1, x2, y2], np.int32)
    frame = whole(mask, region, size)
    assert encode_rle(mask, region, size) == theirs(frame)
    np.testing.assert_array_equal(cocotools.decode(encode_rle(mask, region, size)), frame)


@pytest.mark.parametrize(
    "frame",
    [np.zeros((5, 7), bool), np.ones((5, 7), bool), np.ones((1, 1), bool), np.zeros((1, 1), bool)],
)
def test_all_and_nothing_equal_pycocotools(frame):
    region = np.array([0, 0, frame.shape[1], frame.shape[0]])
    assert encode_rle(frame, region, frame.shape) == theirs(frame)


def test_an_empty_region_is_an_empty_mask():
    rle = encode_rle(np.zeros((0, 4), bool), np.array([3, 5, 7, 5]), (20, 30))
    assert rle == theirs(np.zeros((20, 30), bool))


def test_alternating_long_and_short_runs_equal_pycocotools():
    frame = np.zeros((2000, 1500), bool)
    frame[::7, 3] = True
    frame[:, 1400:] = True
    frame[17, 200] = True
    region = np.array([0, 0, 1500, 2000])
    assert encode_rle(frame, region, frame.shape) == theirs(frame)


def test_runs_by_hand():
    # Columns (0, 1), (1, 1), (0, 0): one zero, three ones, two zeros.
    mask = np.array([[0, 1, 0], [1, 1, 0]], bool)
    assert mask_runs(mask, np.array([0, 0, 3, 2]), (2, 3)).tolist() == [1, 3, 2]
    assert compress_runs(np.array([1, 3, 2])) == "132"
