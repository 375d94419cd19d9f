"""The shipped recipes are valid, and recipes adapt to the batch size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.config import FlowConfig  # noqa: E402
from yolact_ros.errors import ConfigError, WeightsError  # noqa: E402
from yolact_ros.model.weights.checkpoint import save_checkpoint  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.train.config import (  # noqa: E402
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    describe_scaling,
    read_train_config,
    scale_to_batch,
)
from yolact_ros.train.learner import choose_precision  # noqa: E402
from yolact_ros.train.optimizer import frozen_norms  # noqa: E402
from yolact_ros.train.run_folder import commented_yaml  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL, variant  # noqa: E402

CONFIG = Path(__file__).resolve().parents[2] / "config"

# What the authors' `data/config.py`, `train.py` and `utils/augmentations.py` say.
PAPER = {
    "optimizer": {
        "name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4,
        "backbone_rate": 1.0, "gradient_clip": 0.0,
    },
    "schedule": {
        "name": "step", "warm_up_steps": 500, "warm_up_start": 1e-4 / 1e-3,
        "drops": (280000, 600000, 700000, 750000),
    },
    "losses": {
        "box_weight": 1.5, "class_weight": 1.0, "mask_weight": 6.125, "semantic_weight": 1.0,
        "mask_iou_weight": 25.0, "negatives_per_positive": 3, "min_negatives": 0,
        "masks_to_train": 100,
        "smallest_rescored_area": 25,
    },
    "augmentation": {
        "brightness": 32.0, "contrast": 0.5, "saturation": 0.5, "hue": 18.0,
        "expand_probability": 0.5, "expand_ratio": 4.0, "crop_probability": 5 / 6,
        "crop_size": 0.3, "mirror_probability": 0.5, "flip_probability": 0.0, "smallest_box": 4.0,
    },
}  # fmt: skip


def test_the_papers_recipe_has_every_figure_of_the_paper():
    recipe = read_train_config(CONFIG / "train_paper.yaml")
    for group, figures in PAPER.items():
        for name, value in figures.items():
            assert getattr(getattr(recipe, group), name) == value, f"{group}.{name}"
    assert (recipe.steps, recipe.batch_size, recipe.recipe_batch_size) == (800000, 8, 8)
    assert recipe.model == variant("yolact_resnet50")
    assert recipe.model.input_size == (550, 550)
    assert recipe.pretrained and recipe.freeze_batch_norm is None
    assert (recipe.checkpoint_interval, recipe.validation_images) == (10000, 5000)
    # 117 266 images of train2017 have instances.
    assert recipe.validation_interval == 2 * 117266 // 8


def test_the_papers_recipe_leaves_no_figure_to_a_default():
    written = yaml.safe_load((CONFIG / "train_paper.yaml").read_text())
    for group, figures in PAPER.items():
        assert set(figures) <= set(written[group])


def test_the_small_recipe_learns_from_a_pretrained_backbone():
    recipe = read_train_config(CONFIG / "train_small.yaml")
    assert (recipe.optimizer.name, recipe.schedule.name) == ("adamw", "cosine")
    assert recipe.pretrained and recipe.ema_decay > 0.99 and recipe.precision == "auto"
    assert replace(recipe.model, name="tabletop", classes=TABLETOP_MODEL.classes) == TABLETOP_MODEL


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Save a checkpoint of a small custom network."""
    path = tmp_path_factory.mktemp("own") / "last.pth"
    config = replace(TABLETOP_MODEL, classes=("bolt", "nut"), channels=8, num_prototypes=4)
    save_checkpoint(path, Yolact(config))
    return path


def read_recipe(path: Path, checkpoint: Path) -> TrainConfig:
    own = yaml.safe_load(path.read_text())["variant"] == "checkpoint"
    return read_train_config(path, {"start_from": str(checkpoint)} if own else {})


@pytest.mark.parametrize("path", sorted(CONFIG.glob("train_*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_can_be_read(path, checkpoint):
    assert read_recipe(path, checkpoint).training.annotations


def test_the_keyframe_recipe_uses_the_network_that_it_starts_from(checkpoint, tmp_path):
    recipe = read_recipe(CONFIG / "train_keyframes.yaml", checkpoint)
    assert recipe.model.classes == ("bolt", "nut") and recipe.model.channels == 8
    assert recipe.model.flow == FlowConfig(channels=16)
    assert recipe.trained == ("feature_transform",)
    with pytest.raises(WeightsError, match="no_such.pth"):
        read_recipe(CONFIG / "train_keyframes.yaml", tmp_path / "no_such.pth")
    resumed = read_train_config(CONFIG / "train_keyframes.yaml", resume=checkpoint)
    assert resumed.model == recipe.model, "where the run started from may be gone"
    (tmp_path / "recipe.yaml").write_text("variant: checkpoint\n")
    with pytest.raises(ConfigError, match="name it with start_from"):
        read_train_config(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("path", sorted(CONFIG.glob("train_*.yaml")), ids=lambda p: p.stem)
def test_a_recipe_printed_with_all_settings_is_the_same_recipe(path, checkpoint, tmp_path):
    recipe = read_recipe(path, checkpoint)
    (tmp_path / "printed.yaml").write_text(commented_yaml(recipe))
    assert read_train_config(tmp_path / "printed.yaml") == recipe


def test_the_command_prints_settings_with_their_meaning(capsys):
    words = ["train", str(CONFIG / "train_small.yaml"), "--set", "optimizer.learning_rate=0.002"]
    assert main([*words, "--settings"]) == 0
    printed = capsys.readouterr().out
    assert (
        "\n  # Maximum learning rate (0 to 1; default: 0.001)\n  learning_rate: 0.002\n" in printed
    )
    assert "# Optimizer (one of sgd, adamw; default: sgd)\n  name: adamw\n" in printed


def test_another_batch_scales_rate_steps_and_drops_as_the_authors_do():
    meant = replace(TrainConfig(), recipe_batch_size=8)
    large = scale_to_batch(replace(meant, batch_size=64))
    assert large.optimizer.learning_rate == pytest.approx(8e-3)
    assert large.steps == 100000
    assert large.schedule.drops == (35000, 75000, 87500, 93750)
    assert large.schedule.warm_up_steps == 500
    first = large.optimizer.learning_rate * large.schedule.warm_up_start
    assert first == pytest.approx(1e-4)  # not scaled
    small = scale_to_batch(replace(meant, batch_size=3))
    assert small.steps == 2133333 and small.optimizer.learning_rate == pytest.approx(3.75e-4)


def test_scaling_requires_a_size_and_happens_once():
    plain = replace(TrainConfig(), batch_size=16)
    assert scale_to_batch(plain) == plain
    scaled = scale_to_batch(replace(plain, recipe_batch_size=8))
    assert scale_to_batch(scaled) == scaled != plain


def test_scaling_is_reported_in_one_line():
    meant = TrainConfig(
        optimizer=OptimizerConfig(learning_rate=0.01), schedule=ScheduleConfig(drops=(60,)),
        steps=100, batch_size=16, recipe_batch_size=8,
    )  # fmt: skip
    line = describe_scaling(meant, scale_to_batch(meant))
    assert "0.01 -> 0.02" in line and "100 -> 50" in line and "[60] -> [30]" in line
    assert "\n" not in line


def test_batch_norms_freeze_below_six_images_per_process(tmp_path):
    with torch.device("meta"):
        model = Yolact(TABLETOP_MODEL)
    for setting, images, frozen in (
        ("auto", 5, True), ("auto", 6, False), ("true", 64, True), ("false", 1, False),
    ):  # fmt: skip
        path = tmp_path / "recipe.yaml"
        path.write_text(f"variant: tabletop\nfreeze_batch_norm: {setting}\n")
        norms = frozen_norms(model, read_train_config(path), images=images)
        assert bool(norms) == frozen, (setting, images)
    path.write_text("variant: tabletop\nfreeze_batch_norm: sometimes\n")
    with pytest.raises(ConfigError, match="freeze_batch_norm"):
        read_train_config(path)


def test_precision_auto_is_float32_without_a_gpu():
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == torch.float32
    assert choose_precision("float16", cpu) == torch.float16
