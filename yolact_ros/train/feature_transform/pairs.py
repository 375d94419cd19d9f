"""Pairs of a keyframe and a later frame, from which a network learns to warp features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import Dataset

from yolact_ros.config import STRIDES, Checked, ModelConfig, setting
from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError
from yolact_ros.train.augment import AugmentConfig, apply_changes, draw_changes
from yolact_ros.train.feature_transform.synthetic_motion import MotionConfig, move_still

# Streams of the random generators; `loader.TrainingStream` uses 0 to 2.
ORDER, CHANGES, CHOICE, MOTION = 0, 1, 3, 4


@dataclass(frozen=True)
class PairConfig(Checked):
    """Training pairs of the partial feature transform, and the weights of its losses."""

    motion: MotionConfig = field(
        default=MotionConfig(), metadata={"doc": "Motion of pairs from stills"}
    )
    offsets: tuple[int, int] = setting(
        (2, 5), "Minimum and maximum number of frames from keyframe to frame, in annotated videos"
    )
    flow_weight: float = setting(
        1.0, "Weight of the flow loss, where the true flow is known", range=(0.0, 1e3)
    )
    matching_weight: float = setting(
        1.0,
        "Weight of the cosine loss between warped features and those of the full pass",
        range=(0.0, 1e3),
    )


@dataclass(frozen=True)
class Pair:
    """A frame and the keyframe before it, both of the network's input size.

    Attributes:
        frame: the annotated frame.
        keyframe: (H, W, 3) uint8 BGR.
        flow: (2, h4, w4) float32 x and y in pixels, at the cells of x4, from the frame to the
            keyframe; NaN where unknown.
    """

    frame: Sample
    keyframe: np.ndarray
    flow: np.ndarray

    @property
    def file_name(self) -> str:
        """File name of the frame."""
        return self.frame.file_name


class StillPairs(Dataset):
    """Pair each sample of another data set with a keyframe that is made from it."""

    def __init__(self, samples: Dataset, *, config: PairConfig, seed: int) -> None:
        """Wrap `samples`, which are of the network's input size."""
        self.samples = samples
        self.config = config
        self.seed = seed

    def __getitem__(self, position: int) -> Pair:
        random = np.random.default_rng([self.seed, MOTION, position])
        return pair_of_still(self.samples[position], self.config, random=random)


def pair_of_still(frame: Sample, config: PairConfig, *, random: np.random.Generator) -> Pair:
    """Make a keyframe for a frame of the network's input size."""
    still = move_still(frame, config.motion, random=random)
    flow = np.where(still.known, still.flow, np.float32(np.nan))
    # Cell i of a map is centred on pixel stride * i.
    return Pair(frame, still.keyframe, flow[:, :: STRIDES[1], :: STRIDES[1]].copy())


class FramePairs:
    """Annotated frames that have an earlier frame in their video.

    Attributes:
        indices: positions in the data set of the later frames.
    """

    def __init__(self, dataset: CocoDataset, *, offsets: tuple[int, int] = (2, 5)) -> None:
        """Find the pairs.

        Args:
            dataset: data set of videos.
            offsets: minimum and maximum number of frames from the keyframe to the annotated
                frame; the defaults are those of the reference. Near the start of a video, the
                offset is limited by the available frames.

        Raises:
            ValueError: the offsets are not a range of positive numbers.
            DatasetError: no frame with an instance has an earlier one.
        """
        if not 1 <= offsets[0] <= offsets[1]:
            raise ValueError(f"Offsets are {offsets}; expected 1 <= minimum <= maximum.")
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
        """Draw a keyframe for frame `number`; return the positions of both in the data set."""
        index = self.indices[number]
        earlier = self._earlier[index]
        most = min(self.offsets[1], len(earlier))
        offset = int(random.integers(min(self.offsets[0], most), most + 1))
        return earlier[-offset], index

    def load(self, number: int, random: np.random.Generator) -> tuple[Sample, Sample]:
        """Read a random keyframe and frame `number`.

        Raises:
            DatasetError: an image cannot be read.
        """
        keyframe, frame = self.choose(number, random)
        return self.dataset.load(keyframe), self.dataset.load(frame)


class VideoPairs(Dataset):
    """Pairs from annotated videos with the same augmentation; their true motion is unknown.

    The sequence is endless, and pair k depends only on the seed and k.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        *,
        model: ModelConfig,
        augmentation: AugmentConfig,
        config: PairConfig,
        seed: int,
    ) -> None:
        """Find the pairs.

        Raises:
            DatasetError: no frame with an instance has an earlier one.
            ValueError: the offsets are not a range of positive numbers.
        """
        self.pairs = FramePairs(dataset, offsets=config.offsets)
        self.model = model
        self.augmentation = augmentation
        self.seed = seed
        self._order = (-1, np.zeros(0, np.int64))  # epoch, permutation

    def __getitem__(self, position: int) -> Pair:
        epoch, place = divmod(position, len(self.pairs))
        if self._order[0] != epoch:
            random = np.random.default_rng([self.seed, ORDER, epoch])
            self._order = (epoch, random.permutation(len(self.pairs)))
        number = int(self._order[1][place])
        choice = np.random.default_rng([self.seed, CHOICE, position])
        keyframe, frame = self.pairs.load(number, choice)
        random = np.random.default_rng([self.seed, CHANGES, position])
        changes = draw_changes(
            frame,
            self.model.input_size,
            config=self.augmentation,
            random=random,
            resize=self.model.resize,
        )
        frame, keyframe = (
            apply_changes(sample, changes, self.model.input_size, config=self.augmentation)
            for sample in (frame, keyframe)
        )
        return Pair(frame, keyframe.image, unknown_flow(self.model))


def unknown_flow(model: ModelConfig) -> np.ndarray:
    """Return a `Pair.flow` that is unknown everywhere."""
    return np.full((2, *model.feature_sizes[1]), np.nan, np.float32)
