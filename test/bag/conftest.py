"""Provide a small recorded bag and the segmenters of the tiny bundles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bags import growing_rectangle, write_bag

from yolact_ros.config import BackendConfig
from yolact_ros.runtime.segmenter import Segmenter


@pytest.fixture
def images() -> list[np.ndarray]:
    """Return the images that `record` writes."""
    return growing_rectangle()


@pytest.fixture
def record(tmp_path: Path, images: list[np.ndarray]) -> Callable[..., Path]:
    """Write bags with the six images."""
    pytest.importorskip("rosbags")
    return functools.partial(write_bag, tmp_path / "recorded", images)


@pytest.fixture
def segmenter(tiny_bundle) -> Iterator[Segmenter]:
    """Open the tiny bundle."""
    with Segmenter.open(tiny_bundle.folder, backend=BackendConfig(threads=1)) as opened:
        yield opened


@pytest.fixture
def video_segmenter(tiny_video_bundle) -> Iterator[Segmenter]:
    """Open the tiny bundle for video."""
    with Segmenter.open(tiny_video_bundle.folder, backend=BackendConfig(threads=1)) as opened:
        yield opened
