"""Frames of videos, each with an earlier one: what a network with keyframes learns from."""

from __future__ import annotations

import numpy as np

from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError


class FramePairs:
    """Annotated frames that have an earlier frame in their video.

    Attributes:
        indices: positions in the data set of the later frames.
    """

    def __init__(self, dataset: CocoDataset, *, offsets: tuple[int, int] = (2, 5)) -> None:
        """Find the pairs.

        Args:
            dataset: of videos.
            offsets: least and most frames from the keyframe to the annotated frame; the defaults
                are the reference's. Near the start of a video the offset is as large as can be.

        Raises:
            ValueError: the offsets are no range of 1 or more.
            DatasetError: no frame with an instance has an earlier one.
        """
        if not 1 <= offsets[0] <= offsets[1]:
            raise ValueError(f"Offsets are {offsets}; expected 1 <= least <= most.")
        self.dataset = dataset
        self.offsets = offsets
        self._earlier: dict[int, list[int]] = {}
        for frames in dataset.videos():
            for place, index in enumerate(frames):
                if place and dataset.has_instances(index):
                    self._earlier[index] = frames[:place]
        self.indices = sorted(self._earlier)
        if not self.indices:
            raise DatasetError(
                f"{dataset.annotations_path}: no annotated frame has an earlier one; pairs need "
                "annotations of videos (YouTube-VIS)."
            )

    def __len__(self) -> int:
        return len(self.indices)

    def choose(self, number: int, random: np.random.Generator) -> tuple[int, int]:
        """Positions in the data set of a keyframe, drawn at random, and of frame `number`."""
        index = self.indices[number]
        earlier = self._earlier[index]
        most = min(self.offsets[1], len(earlier))
        offset = int(random.integers(min(self.offsets[0], most), most + 1))
        return earlier[-offset], index

    def load(self, number: int, random: np.random.Generator) -> tuple[Sample, Sample]:
        """Read a keyframe, drawn at random, and frame `number`.

        Raises:
            DatasetError: an image cannot be read.
        """
        keyframe, frame = self.choose(number, random)
        return self.dataset.load(keyframe), self.dataset.load(frame)
