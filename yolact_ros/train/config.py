"""Configure a training run (network, data and recipe), and read the configuration from YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from yolact_ros.config import Checked, ModelConfig, override, setting
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
class DataConfig(Checked):
    """Locates the annotations and images of a data set; empty = none.

    Attributes:
        annotations: Annotation file in COCO format.
        images: Folder of the annotated images.
        learn_boxes: Also learn from annotations that have a box but no mask.
    """

    annotations: str = setting("")
    images: str = setting("")
    learn_boxes: bool = setting(False)


@dataclass(frozen=True)
class OptimizerConfig(Checked):
    """Configures the optimizer; the defaults are those of the reference.

    Attributes:
        name: Optimizer.
        learning_rate: Maximum learning rate.
        backbone_rate: Learning rate of the backbone as a fraction of learning_rate (0 = frozen).
        momentum: Momentum of sgd, or first beta of adamw.
        weight_decay: Weight decay, which adamw does not apply to biases and norms.
        gradient_clip: Maximum norm of the gradient of all weights (0 = off).
    """

    name: str = setting("sgd", choices=("sgd", "adamw"))
    learning_rate: float = setting(1e-3, range=(0.0, 1.0))
    backbone_rate: float = setting(1.0, range=(0.0, 1.0))
    momentum: float = setting(0.9, range=(0.0, 0.999))
    weight_decay: float = setting(5e-4, range=(0.0, 1.0))
    gradient_clip: float = setting(0.0, range=(0.0, 1e6))


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    """Configures the learning rate schedule; the defaults are those of the reference for COCO.

    Attributes:
        name: Learning rate schedule after the warm-up.
        warm_up_steps: Number of steps of the linear warm-up.
        warm_up_start: Learning rate at the start of the warm-up, as a fraction of the maximum.
        drops: Steps at which schedule step divides the learning rate by ten.
    """

    name: str = setting("step", choices=("step", "cosine"))
    warm_up_steps: int = setting(500, range=(0, 1000000))
    warm_up_start: float = setting(0.1, range=(0.0, 1.0))
    drops: tuple[int, ...] = setting((280000, 600000, 700000, 750000))


@dataclass(frozen=True)
class TrainConfig(Checked):
    """Configures a training run; the defaults are the recipe of the paper (YOLACT section 5).

    Attributes:
        pairs: Train the partial feature transform on pairs of a keyframe and a later frame (null =
            train on single images).
        pretrained: Initialise the backbone with ImageNet weights.
        start_from: Initialise from this checkpoint, bundle or shipped model, e.g. tools; weights
            with matching name and shape are copied (transfer learning).
        freeze_batch_norm: Freeze the backbone's batch norms: true, false, or auto (with fewer than
            six images per process).
        frozen: Parts of the network that are not trained, by prefix of the parameter name, e.g.
            backbone.stem.
        trained: Train only these parts, by prefix of the parameter name (empty = all that are not
            frozen).
        steps: Number of training steps.
        batch_size: Global batch size (all processes).
        recipe_batch_size: Batch size for which the recipe was written; with another one, the
            learning rate, steps and drops are scaled (0 = never).
        repeat_threshold: Fraction of images below which a class is rare, so that its images are
            repeated (0 = off).
        ema_decay: EMA decay; checkpoints hold the EMA weights (0 = off).
        precision: Precision of the forward pass; auto: bfloat16 or float16 on a GPU, the faster of
            float32 and bfloat16 on a CPU. Losses are always float32.
        device: Device to train on; auto: a GPU if there is one.
        seed: Random seed.
        checkpoint_interval: Number of steps between checkpoints.
        validation_interval: Number of steps between validations.
        validation_images: Number of images per validation, evenly spaced over the data set.
        patience: Number of validations without a better result after which the run ends (0 =
            never).
        validation_ap: Compute COCO box and mask AP at each validation, and select best.pth by it.
        log_interval: Number of steps between lines of the log.
        workers: Number of processes that prepare samples (0 = none).
        threads: CPU threads (0 = chosen by torch).
    """

    model: ModelConfig = YOLACT_RESNET50
    training: DataConfig = DataConfig()
    validation: DataConfig = DataConfig()
    augmentation: AugmentConfig = AugmentConfig()
    losses: LossConfig = LossConfig()
    pairs: PairConfig | None = setting(None)
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    pretrained: bool = setting(True)
    start_from: str = setting("")
    freeze_batch_norm: bool | None = setting(None)
    frozen: tuple[str, ...] = setting(())
    trained: tuple[str, ...] = setting(())
    steps: int = setting(800000, range=(1, 100000000))
    batch_size: int = setting(8, range=(1, 4096))
    recipe_batch_size: int = setting(0, range=(0, 4096))
    repeat_threshold: float = setting(0.0, range=(0.0, 1.0))
    ema_decay: float = setting(0.0, range=(0.0, 0.99999))
    precision: str = setting("float32", choices=("auto", "float32", "bfloat16", "float16"))
    device: str = setting("auto", choices=("auto", "cpu", "cuda"))
    seed: int = setting(0, range=(0, 2**31))
    checkpoint_interval: int = setting(10000, range=(1, 100000000))
    validation_interval: int = setting(10000, range=(1, 100000000))
    validation_images: int = setting(5000, range=(1, 10000000))
    patience: int = setting(0, range=(0, 1000000))
    validation_ap: bool = setting(True)
    log_interval: int = setting(20, range=(1, 100000))
    workers: int = setting(2, range=(0, 256))
    threads: int = setting(0, range=(0, 1024))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs is not None and self.model.flow is None:
            raise ConfigError(
                f"Training on pairs requires a network with a feature transform, which "
                f"{self.model.name!r} lacks; set model.flow, e.g. to {{channels: 16}}."
            )


def train_config_from_plain(
    values: Mapping[str, Any], *, resume: str | Path | None = None
) -> TrainConfig:
    """Build a configuration from a mapping read from YAML.

    The key `variant` names the base network (`yolact_ros.variants`, or `checkpoint` for that of
    `start_from`). All other keys are fields of `TrainConfig` that differ from its defaults.
    `model.classes` may be `from_annotations`: the categories of the training annotations that have
    an instance. A run that resumes from the checkpoint `resume` has the network of that checkpoint
    and ignores `start_from`.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or is out of range.
        DatasetError: the annotations cannot be read, or have no classes.
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
        raise ConfigError("The name of a setting is not text; expected e.g. `steps: 1000`.")
    if values.get("freeze_batch_norm") == "auto":
        values["freeze_batch_norm"] = None
    model = values.get("model")
    if isinstance(model, Mapping) and model.get("classes") == FROM_ANNOTATIONS:
        data = override(DataConfig(), values.get("training") or {}, where="training")
        if not data.annotations:
            raise ConfigError(
                f"model.classes is {FROM_ANNOTATIONS!r}, but training.annotations is empty."
            )
        classes = classes_with_instances(
            Path(data.annotations), Path(data.images), learn_boxes=data.learn_boxes
        )
        values["model"] = {**model, "classes": classes}
    return override(base, values)


def _model_of(path: Any) -> ModelConfig:
    """Return the network of the checkpoint that a run starts from."""
    if not path:
        raise ConfigError(
            f"variant is {CHECKPOINT_VARIANT!r}, the network of the checkpoint that the run "
            "starts from; name it with start_from, in the file or with --set."
        )
    return load_checkpoint(str(path)).config


def scale_to_batch(config: TrainConfig) -> TrainConfig:
    """Adapt a recipe to another batch size by the linear rule, if it names its own.

    The learning rate scales with the batch size; steps and drops scale inversely, so that the
    number of images is the same. The warm-up keeps its length and initial rate (dbolya/yolact
    `train.py`, autoscale).
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
    """Return one line about the changes of `scale_to_batch`."""
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
    find_checkpoint: Callable[[str], str] = str,
) -> TrainConfig:
    """Read a YAML file.

    Args:
        path: YAML file; relative paths in it are relative to the current folder.
        changes: overrides by dotted key, e.g. {"optimizer.learning_rate": 0.01}.
        resume: checkpoint that the run resumes from, if any.
        find_checkpoint: returns the checkpoint that `start_from` names, e.g. that of a bundle.

    Raises:
        ConfigError: the file is missing, is not a YAML mapping or has invalid settings.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(read_file(path, limit=MAX_RECIPE_BYTES, error=ConfigError))
    # ValueError: invalid date or number; TypeError: invalid key.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"The configuration {path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration {path} is not a mapping of settings.")
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        group = values
        for parent in parents:
            inner = group.get(parent, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{path}: {parent!r} in {key!r} is not a group of settings.")
            group[parent] = dict(inner)  # aliases in YAML share one object
            group = group[parent]
        group[last] = value
    start = values.get("start_from")
    if start and isinstance(start, str) and resume is None:
        values["start_from"] = find_checkpoint(start)
    try:
        return train_config_from_plain(values, resume=resume)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
