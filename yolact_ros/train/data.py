"""Open the data sets of a training run."""

from __future__ import annotations

from yolact_ros.datasets.coco import CocoDataset, likely_name
from yolact_ros.errors import ConfigError
from yolact_ros.train.config import DataConfig, TrainConfig
from yolact_ros.train.feature_transform.pairs import VideoPairs
from yolact_ros.train.loader import TrainingStream, ValidationSamples, check_readable


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
