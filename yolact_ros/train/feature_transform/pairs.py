"""Provide pairs of a keyframe and a later frame, from which a network learns to warp features."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset

from yolact_ros.config import STRIDES, Checked, setting
from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError
from yolact_ros.train.augment import apply_changes, draw_changes
from yolact_ros.train.feature_transform.synthetic_motion import MotionConfig, move_still

if TYPE_CHECKING:
    from yolact_ros.train.config import TrainConfig

# Streams of the random generators of a training.
ORDER, CHANGES, REPETITION, CHOICE, MOTION = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class PairConfig(Checked):
    """Configures the pairs that train the partial feature transform, and its losses.

    Attributes:
        motion: Motion of the pairs that are rendered from still images.
        offsets: Minimum and maximum number of frames between keyframe and frame, in annotated
            videos.
        flow_weight: Weight of the flow loss, where the true flow is known.
        matching_weight: Weight of the cosine loss between warped features and those of the full
            network.
    """

    motion: MotionConfig = MotionConfig()
    offsets: tuple[int, int] = setting((2, 5))
    flow_weight: float = setting(1.0, range=(0.0, 1e3))
    matching_weight: float = setting(1.0, range=(0.0, 1e3))


@dataclass(frozen=True)
class Pair:
    """Holds a frame and the keyframe before it, both at the network's input size.

    Attributes:
        frame: the annotated frame.
        keyframe: (H, W, 3) uint8 BGR.
        flow: (2, h4, w4) float32 x and y in pixels, at the cells of x4, from the frame to the
            keyframe; NaN where unknown.
    """

    frame: Sample
    keyframe: np.ndarray
    flow: np.ndarray


def pair_of_still(frame: Sample, config: PairConfig, *, random: np.random.Generator) -> Pair:
    """Render a keyframe for a frame of the network's input size."""
    still = move_still(frame, config.motion, random=random)
    flow = np.where(still.known, still.flow, np.float32(np.nan))
    # Cell i of a map is centred on pixel stride * i.
    return Pair(frame, still.keyframe, flow[:, :: STRIDES[1], :: STRIDES[1]].copy())


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Draw the order of `count` samples in an epoch."""
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)


class VideoPairs(Dataset):
    """Yields pairs from annotated videos with the same augmentation; their true motion is unknown.

    The sequence is endless, and pair k depends only on the seed and k.

    Attributes:
        indices: positions in the data set of the frames with instances that have an earlier frame
            in their video.
    """

    def __init__(self, dataset: CocoDataset, config: TrainConfig) -> None:
        """Find the pairs.

        Raises:
            DatasetError: no frame with an instance has an earlier one.
            ValueError: the offsets are not a range of positive numbers.
        """
        assert config.pairs is not None
        self.offsets = config.pairs.offsets
        if not 1 <= self.offsets[0] <= self.offsets[1]:
            raise ValueError(f"Offsets are {self.offsets}; expected 1 <= minimum <= maximum.")
        self.dataset = dataset
        self.config = config
        self._earlier = {
            index: frames[:number]
            for frames in dataset.videos()
            for number, index in enumerate(frames)
            if number and dataset.has_instances(index)
        }
        self.indices = sorted(self._earlier)
        if not self.indices:
            raise DatasetError(
                f"{dataset.annotations_path}: no annotated frame has an earlier one; pairs "
                "require annotations of videos (YouTube-VIS)."
            )

    def choose(self, index: int, random: np.random.Generator) -> int:
        """Draw a keyframe for the frame at `index`; near the start of a video, there are fewer."""
        earlier = self._earlier[index]
        most = min(self.offsets[1], len(earlier))
        return earlier[-int(random.integers(min(self.offsets[0], most), most + 1))]

    def __getitem__(self, position: int) -> Pair:
        epoch, offset = divmod(position, len(self.indices))
        config, model = self.config, self.config.model
        index = self.indices[int(epoch_order(config.seed, epoch, len(self.indices))[offset])]
        choice = np.random.default_rng([config.seed, CHOICE, position])
        keyframe, frame = self.dataset.load(self.choose(index, choice)), self.dataset.load(index)
        random = np.random.default_rng([config.seed, CHANGES, position])
        size, augmentation = model.input_size, config.augmentation
        changes = draw_changes(
            frame, size, config=augmentation, random=random, resize=model.resize
        )
        frame, keyframe = (
            apply_changes(sample, changes, size, config=augmentation)
            for sample in (frame, keyframe)
        )
        unknown = np.full((2, *model.feature_sizes[1]), np.nan, np.float32)
        return Pair(frame, keyframe.image, unknown)
