"""What a training run is: network, data, recipe, as one configuration read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from yolact_ros.config import ModelConfig, check_settings, override, setting
from yolact_ros.datasets.coco import classes_with_instances
from yolact_ros.errors import ConfigError
from yolact_ros.files import read_file
from yolact_ros.model.weights.checkpoint import load_checkpoint
from yolact_ros.train.augment import AugmentConfig
from yolact_ros.train.feature_transform.pairs import PairConfig
from yolact_ros.train.losses import LossConfig
from yolact_ros.variants import YOLACT_RESNET50, variant

CHECKPOINT_VARIANT = "checkpoint"
FROM_ANNOTATIONS = "from_annotations"


MAX_RECIPE_BYTES = 4 << 20


@dataclass(frozen=True)
class DataConfig:
    """Where annotated images lie; both paths empty means none."""

    annotations: str = setting("", "COCO annotation file")
    images: str = setting("", "folder of its images")
    learn_boxes: bool = setting(
        False,
        "also learn from annotations that have a box and no mask, instead of leaving them out",
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients change the weights; the defaults are the reference's."""

    name: str = setting("sgd", "optimizer", choices=("sgd", "adamw"))
    learning_rate: float = setting(1e-3, "largest learning rate", range=(0.0, 1.0))
    backbone_rate: float = setting(
        1.0,
        "the backbone's learning rate as a share of it; 0 keeps the backbone",
        range=(0.0, 1.0),
    )
    momentum: float = setting(0.9, "momentum of sgd; first beta of adamw", range=(0.0, 0.999))
    weight_decay: float = setting(
        5e-4, "pull towards zero; adamw spares biases and norms", range=(0.0, 1.0)
    )
    gradient_clip: float = setting(
        0.0, "largest norm of the whole gradient; 0 is off", range=(0.0, 1e6)
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves; the defaults are the reference's for COCO."""

    name: str = setting("step", "shape after the warm-up", choices=("step", "cosine"))
    warm_up_steps: int = setting(500, "steps of linear growth", range=(0, 1000000))
    warm_up_start: float = setting(
        0.1, "first learning rate as a share of the largest", range=(0.0, 1.0)
    )
    drops: tuple[int, ...] = setting(
        (280000, 600000, 700000, 750000), "steps from which on `step` is ten times smaller"
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The defaults are the reference's recipe (YOLACT section 5)."""

    model: ModelConfig = YOLACT_RESNET50
    training: DataConfig = DataConfig()
    validation: DataConfig = DataConfig()
    augmentation: AugmentConfig = AugmentConfig()
    losses: LossConfig = LossConfig()
    pairs: PairConfig | None = None
    """Train the partial feature transform on pairs of keyframe and frame; None: on images."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    pretrained: bool = setting(True, "start the backbone from ImageNet weights")
    start_from: str = setting(
        "", "checkpoint of a like network whose fitting entries are the start (other classes)"
    )
    freeze_batch_norm: bool | None = setting(
        None,
        "keep the batch norms of the backbone as they are; `auto` (None): with fewer than six "
        "images for each process",
    )
    frozen: tuple[str, ...] = setting(
        (), "parts that are not trained, by the start of their parameters' names: backbone.stem"
    )
    trained: tuple[str, ...] = setting(
        (), "parts that alone are trained, named likewise; empty: all that are not frozen"
    )
    steps: int = setting(800000, "optimisation steps", range=(1, 100000000))
    batch_size: int = setting(8, "images of a step, of all processes", range=(1, 4096))
    recipe_batch_size: int = setting(
        0,
        "batch size that learning rate, steps and drops are meant for; for another they are "
        "scaled; 0: they are taken as they are",
        range=(0, 4096),
    )
    repeat_threshold: float = setting(
        0.0, "share of the images below which a class is rare and its images are repeated",
        range=(0.0, 1.0),
    )  # fmt: skip
    ema_decay: float = setting(
        0.0, "decay of the running mean of the weights, which is what is kept; 0 is off",
        range=(0.0, 0.99999),
    )  # fmt: skip
    precision: str = setting(
        "float32", "of the network's forward pass, auto: the GPU's fast one; losses are float32",
        choices=("auto", "float32", "bfloat16", "float16"),
    )  # fmt: skip
    device: str = setting(
        "auto", "auto takes a GPU if there is one", choices=("auto", "cpu", "cuda")
    )
    seed: int = setting(0, "of all randomness", range=(0, 2**31))
    checkpoint_interval: int = setting(10000, "steps between checkpoints", range=(1, 100000000))
    validation_interval: int = setting(10000, "steps between validations", range=(1, 100000000))
    validation_images: int = setting(
        5000, "images of a validation, spread over the data set", range=(1, 10000000)
    )
    validation_ap: bool = setting(
        True, "also compute COCO's box and mask AP of the validation images, to choose best.pth by"
    )
    log_interval: int = setting(20, "steps whose mean is one line of the log", range=(1, 100000))
    workers: int = setting(
        2, "processes that prepare samples; 0 prepares them inline", range=(0, 256)
    )
    threads: int = setting(
        0, "CPU threads of the network; 0 leaves torch's choice", range=(0, 1024)
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.pairs is not None and self.model.flow is None:
            raise ConfigError(
                f"Training on pairs needs a network with a feature transform, which "
                f"{self.model.name!r} lacks; set model.flow, e.g. to {{channels: 16}}."
            )


def train_config_from_plain(
    values: Mapping[str, Any], *, resume: str | Path | None = None
) -> TrainConfig:
    """Build a configuration from what YAML holds.

    The key `variant` names the network to start from (`yolact_ros.variants`; `checkpoint` is that
    of the checkpoint `start_from`); all others are fields of `TrainConfig`, and only differences
    from its defaults need to be given. `model.classes` may be `from_annotations`: the categories
    of the training annotations that have an instance. A run that goes on from the checkpoint
    `resume` has no more use for `start_from`, and has the network of the former.

    Raises:
        ConfigError: an unknown key, a value of another type or out of its range.
        DatasetError: the annotations that the classes come from cannot be read or have none.
        WeightsError: the checkpoint cannot be read.
    """
    values = dict(values)
    base = TrainConfig()
    if "variant" in values:
        name = str(values.pop("variant"))
        own = name == CHECKPOINT_VARIANT
        base = TrainConfig(
            model=_model_of(resume or values.get("start_from")) if own else variant(name)
        )
    if not all(isinstance(key, str) for key in values):
        raise ConfigError("A name of a setting is no text; expected e.g. `steps: 1000`.")
    if values.get("freeze_batch_norm") == "auto":
        values["freeze_batch_norm"] = None
    model = values.get("model")
    if isinstance(model, Mapping) and model.get("classes") == FROM_ANNOTATIONS:
        data = override(DataConfig(), values.get("training") or {}, where="training")
        if not data.annotations:
            raise ConfigError(
                f"model.classes is {FROM_ANNOTATIONS!r}, but training.annotations names no file."
            )
        classes = classes_with_instances(
            Path(data.annotations), Path(data.images), learn_boxes=data.learn_boxes
        )
        values["model"] = {**model, "classes": classes}
    return override(base, values)


def _model_of(path: Any) -> ModelConfig:
    """The network of the checkpoint that a run starts from."""
    if not path:
        raise ConfigError(
            f"variant is {CHECKPOINT_VARIANT!r}, the network of the checkpoint that the run "
            "starts from; name it with start_from, in the file or with --set."
        )
    return load_checkpoint(str(path)).config


def scale_to_batch(config: TrainConfig) -> TrainConfig:
    """Fit a recipe to another batch size by the linear rule, if it says what it is meant for.

    The learning rate grows with the batch; steps and drops shrink, so that as many images are
    seen. The warm-up keeps its length and its first rate (dbolya/yolact `train.py`, autoscale).
    """
    size, meant = config.batch_size, config.recipe_batch_size
    if meant in (0, size):
        return config
    factor = size / meant
    optimizer, schedule = config.optimizer, config.schedule
    return replace(
        config,
        recipe_batch_size=size,
        steps=max(int(config.steps // factor), 1),
        optimizer=replace(optimizer, learning_rate=min(optimizer.learning_rate * factor, 1.0)),
        schedule=replace(
            schedule,
            warm_up_start=min(schedule.warm_up_start / factor, 1.0),
            drops=tuple(int(drop // factor) for drop in schedule.drops),
        ),
    )


def describe_scaling(meant: TrainConfig, scaled: TrainConfig) -> str:
    """One line about what `scale_to_batch` changed."""
    line = (
        f"Batches of {scaled.batch_size} images with a recipe for {meant.recipe_batch_size}: "
        f"learning rate {meant.optimizer.learning_rate:g} -> {scaled.optimizer.learning_rate:g}, "
        f"steps {meant.steps} -> {scaled.steps}"
    )
    if meant.schedule.name == "step":
        line += f", drops {list(meant.schedule.drops)} -> {list(scaled.schedule.drops)}"
    return line + "."


def read_train_config(
    path: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    resume: str | Path | None = None,
) -> TrainConfig:
    """Read a YAML file.

    Args:
        path: the file; relative paths in it are meant from the current folder.
        changes: dotted key to value, e.g. {"optimizer.learning_rate": 0.01}; they win.
        resume: the checkpoint that the run goes on from, if it does.

    Raises:
        ConfigError: the file is missing, is no YAML mapping or holds unusable settings.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(read_file(path, limit=MAX_RECIPE_BYTES, error=ConfigError))
    # ValueError: no date or number; TypeError: a key that cannot be one.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"The configuration {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration {path} is not a mapping of settings.")
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            inner = place.get(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{path}: {parent!r} in {key!r} is no group of settings.")
            place[parent] = dict(inner)  # an alias of YAML is one object in two places
            place = place[parent]
        place[last] = value
    try:
        return train_config_from_plain(values, resume=resume)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
