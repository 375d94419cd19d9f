"""Open the data of a training; load batches in an order that depends only on seed and step."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from yolact_ros.datasets.coco import CocoDataset, Sample, likely_name
from yolact_ros.errors import ConfigError, DatasetError
from yolact_ros.train.augment import augment, resize_sample
from yolact_ros.train.config import DataConfig, TrainConfig
from yolact_ros.train.feature_transform.pairs import (
    CHANGES,
    MOTION,
    REPETITION,
    Pair,
    VideoPairs,
    epoch_order,
    pair_of_still,
)
from yolact_ros.train.matching import Target

logger = logging.getLogger(__name__)


class Motion(NamedTuple):
    """Holds the keyframes of the images of a batch.

    Attributes:
        keyframes: (B, H, W, 3) uint8 BGR.
        flow: (B, 2, h4, w4) float32 pixels, see `pairs.Pair`.
    """

    keyframes: Tensor
    flow: Tensor

    def to(self, device: torch.device) -> Motion:
        """Return the same on another device."""
        return Motion(self.keyframes.to(device), self.flow.to(device))


class Batch(NamedTuple):
    """Holds samples ready for the network.

    Attributes:
        images: (B, H, W, 3) uint8 BGR at the network's input size.
        passed_over: why images that were replaced by others cannot be used.
        motion: for pairs only.
    """

    images: Tensor
    targets: list[Target]
    file_names: list[str]
    passed_over: list[str]
    motion: Motion | None = None


class TrainingStream(Dataset):
    """Yields augmented samples endlessly, in a new random order for each epoch.

    With a repeat threshold, images of rare classes are repeated within an epoch (see
    `repeat_factors`). Sample k depends only on the seed and k, so a resumed run and any number of
    worker processes get the same samples.
    """

    def __init__(self, dataset: CocoDataset, config: TrainConfig) -> None:
        """Prepare the sequence.

        Args:
            dataset: images without instances are left out, as in the reference, unless
                `LossConfig.min_negatives` requires them.
            config: configuration of the run.

        Raises:
            DatasetError: no image has an instance.
        """
        self.dataset = dataset
        self.config = config
        self.indices = [i for i in range(len(dataset)) if dataset.has_instances(i)]
        if not self.indices:
            raise DatasetError(
                f"{dataset.annotations_path}: no image has an instance of the classes "
                f"{', '.join(dataset.classes)}; there is nothing to learn."
            )
        if config.losses.min_negatives:
            self.indices = list(range(len(dataset)))
        if config.repeat_threshold:
            self.indices = self._repeated(config.repeat_threshold)

    def _repeated(self, threshold: float) -> list[int]:
        """Repeat the indices of rare classes; fractions are rounded at random."""
        classes = [
            {a["class_id"] for a in self.dataset.annotations(i) if not a["iscrowd"]}
            for i in self.indices
        ]
        factors = repeat_factors(classes, threshold=threshold)
        random = np.random.default_rng([self.config.seed, REPETITION])
        times = np.floor(factors + random.random(len(factors))).astype(int)
        return np.repeat(self.indices, times).tolist()

    def __getitem__(self, position: int) -> Sample | Pair:
        config = self.config
        sample = augment(
            self._load(position),
            config.model.input_size,
            config=config.augmentation,
            random=np.random.default_rng([config.seed, CHANGES, position]),
            resize=config.model.resize,
        )
        if config.pairs is None:
            return sample
        random = np.random.default_rng([config.seed, MOTION, position])
        return pair_of_still(sample, config.pairs, random=random)

    def _load(self, position: int) -> Sample:
        """Load the image at a position of the stream, or the next one that is readable.

        Raises:
            DatasetError: no image can be read.
        """
        epoch, offset = divmod(position, len(self.indices))
        order = epoch_order(self.config.seed, epoch, len(self.indices))
        faults: list[str] = []
        for number in np.roll(order, -offset):
            try:
                sample = self.dataset.load(self.indices[int(number)])
            except DatasetError as error:
                faults.append(str(error))
            else:
                return replace(sample, passed_over=tuple(faults))
        raise DatasetError(f"No image can be read of {self.dataset.annotations_path}. {faults[0]}")


def repeat_factors(classes: Sequence[Collection[int]], *, threshold: float) -> np.ndarray:
    """Compute how often each image occurs in an epoch, so that rare classes are seen more often.

    A class in a fraction f of the images has the factor max(1, sqrt(threshold / f)); the factor of
    an image is the largest of its classes (LVIS, Gupta et al. 2019, appendix B.2).

    Args:
        classes: class ids in each of the N images.
        threshold: fraction of the images, 0 to 1, below which a class counts as rare.

    Returns:
        (N,) float64, at least 1.
    """
    shows = Counter(class_id for image in classes for class_id in set(image))
    wanted = {c: max(1.0, (threshold * len(classes) / n) ** 0.5) for c, n in shows.items()}
    return np.array([max((wanted[c] for c in image), default=1.0) for image in classes])


class ValidationSamples(Dataset):
    """Provides unaugmented images of the data set, evenly spaced, at the network's size.

    With `TrainConfig.pairs`, each has a keyframe made from it, which is always the same.
    """

    def __init__(self, dataset: CocoDataset, config: TrainConfig) -> None:
        self.dataset = dataset
        self.model = config.model
        self.pairs = config.pairs
        self._faults: set[int] = set()
        count = min(config.validation_images, len(dataset))
        self.indices = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample | Pair | None:
        """Return the sample of a position; log it and return None if its image cannot be read."""
        try:
            sample = self.dataset.load(self.indices[position])
        except DatasetError as error:
            if position not in self._faults:
                self._faults.add(position)
                logger.warning("%s It is left out of validations.", error)
            return None
        sample = resize_sample(sample, self.model.input_size, resize=self.model.resize)
        if self.pairs is None:
            return sample
        return pair_of_still(sample, self.pairs, random=np.random.default_rng(position))


def training_loader(
    stream: Dataset, steps: range, config: TrainConfig, *, part: tuple[int, int] = (0, 1)
) -> DataLoader:
    """Create a loader for the batches of some steps.

    Args:
        stream: endless sequence, a `TrainingStream` or `VideoPairs`.
        steps: the steps.
        config: configuration with the batch size and the number of worker processes.
        part: (i, n) to load the i-th of n equal parts of each batch.
    """
    workers = config.workers
    return DataLoader(
        stream,
        batch_sampler=step_positions(steps, batch_size=config.batch_size, part=part),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_start_worker,
        # A new interpreter, because forking a process with running threads can hang.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )


def check_readable(samples: ValidationSamples) -> None:
    """Fail before the first step if no validation image can be read.

    Raises:
        DatasetError: no image can be read.
    """
    if len(samples) and all(samples[position] is None for position in range(len(samples))):
        raise DatasetError(
            f"No image of {samples.dataset.annotations_path} can be read; repair them, or train "
            "without validation."
        )


def step_positions(steps: range, *, batch_size: int, part: tuple[int, int]) -> Iterator[list[int]]:
    """Yield the positions in a `TrainingStream` of part (i, n) of each batch."""
    length = batch_size // part[1]
    for step in steps:
        start = step * batch_size + part[0] * length
        yield list(range(start, start + length))


def validation_loader(
    samples: ValidationSamples, *, batch_size: int, part: tuple[int, int] = (0, 1)
) -> DataLoader:
    """Create a loader of validation images; with `part` (i, n), of every n-th batch from i on."""
    starts = range(0, len(samples), batch_size)[part[0] :: part[1]]
    batches = [list(range(s, min(s + batch_size, len(samples)))) for s in starts]
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate)


def collate(samples: Sequence[Sample | Pair | None]) -> Batch | None:
    """Stack samples, or pairs, of one size into a batch; None if there are none."""
    present = [sample for sample in samples if sample is not None]
    if not present:
        return None
    frames = [sample.frame if isinstance(sample, Pair) else sample for sample in present]
    pairs = [sample for sample in present if isinstance(sample, Pair)]
    motion = None
    if pairs:
        motion = Motion(
            keyframes=torch.from_numpy(np.stack([pair.keyframe for pair in pairs])),
            flow=torch.from_numpy(np.stack([pair.flow for pair in pairs])),
        )
    return Batch(
        images=torch.from_numpy(np.stack([frame.image for frame in frames])),
        targets=[make_target(frame) for frame in frames],
        file_names=[frame.file_name for frame in frames],
        passed_over=[fault for frame in frames for fault in frame.passed_over],
        motion=motion,
    )


def make_target(sample: Sample) -> Target:
    """Create the target of a sample at the network's size, with crowds kept separate."""
    height, width = sample.image.shape[:2]
    boxes = torch.from_numpy(sample.boxes / np.asarray([width, height] * 2, np.float32))
    crowd = torch.from_numpy(sample.crowd)
    box_only = torch.zeros(len(sample), dtype=torch.bool)
    if sample.box_only is not None:
        box_only = torch.from_numpy(sample.box_only)
    return Target(
        boxes=boxes[~crowd],
        class_ids=torch.from_numpy(sample.class_ids)[~crowd],
        masks=torch.from_numpy(np.asarray(sample.masks))[~crowd],
        crowd_boxes=boxes[crowd],
        box_only=box_only[~crowd],
    )


def _start_worker(_: int) -> None:
    # A signal can reach every process of the group, but only the trainer handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)


def open_training_data(config: TrainConfig) -> TrainingStream | VideoPairs:
    """Open the training data: single images, or pairs of them.

    Raises:
        ConfigError: no training data are named, or a class is misspelt.
        DatasetError: annotations or images are missing or unusable.
    """
    if not config.training.annotations:
        raise ConfigError(
            "No training data: set training.annotations and training.images, in the file or "
            "with --set."
        )
    dataset = _open_dataset(config.training, config.model.classes)
    check_class_names(dataset)
    if config.pairs is not None and dataset.videos():
        return VideoPairs(dataset, config)
    return TrainingStream(dataset, config)


def open_validation_data(config: TrainConfig) -> ValidationSamples | None:
    """Open the validation data; return None if no annotations are named.

    Raises:
        DatasetError: annotations or images are missing or unusable.
    """
    if not config.validation.annotations:
        return None
    samples = ValidationSamples(_open_dataset(config.validation, config.model.classes), config)
    check_readable(samples)
    return samples


def _open_dataset(data: DataConfig, classes: tuple[str, ...]) -> CocoDataset:
    dataset = CocoDataset(data.annotations, data.images, classes, learn_boxes=data.learn_boxes)
    dataset.check_files()
    return dataset


def check_class_names(dataset: CocoDataset) -> None:
    """Reject a class without annotations if the name of another class is probably meant.

    Raises:
        ConfigError: there is such a class; the message suggests the likely one.
    """
    wrong = []
    for class_id, name in enumerate(dataset.classes):
        if class_id not in dataset.category_ids:
            likely = likely_name(name, dataset.other_names)
            wrong += [f"{name!r} (did you mean {likely!r}?)"] if likely else []
    if wrong:
        raise ConfigError(
            f"model.classes names {', '.join(wrong)}, which {dataset.annotations_path} does not "
            f"have; its other classes are: {', '.join(dataset.other_names)}. Correct the names, "
            "or set model.classes to from_annotations."
        )
