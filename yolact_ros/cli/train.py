"""`yolact train`: train a network."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from yolact_ros.cli.settings import FLAG, FOLDER, documented
from yolact_ros.errors import ConfigError, DatasetError

DEFAULT_RECIPE = "config/train_small.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact train`.

    Example:
        --data data/parts -o out/parts --set start_from=tools

    Options:
        --output: folder to create for checkpoints and logs (default: out/train/NAME, where NAME is
            that of the --data folder or of the recipe).
        --resume: continue the run in this folder, or from its last.pth.
        --data: folder written by `yolact import-dataset`, with train.json and train/, and
            optionally val.json and val/; classes without instances are left out.
        --set: change a setting, e.g. optimizer.learning_rate=0.001; can be repeated.
        --memory: use the largest batch size whose training steps fit in this much GPU memory or,
            on a CPU, in this much process memory.
        --find-rate: suggest a learning rate, from up to 100 steps at increasing rates, and end
            without training.
        --settings: print all settings of the run as commented YAML, and end without training.
    """
    add = documented(parser, add_arguments)
    add(
        "config",
        metavar="CONFIG",
        type=Path,
        nargs="?",
        help=f"recipe (YAML file), e.g. config/train_tabletop.yaml (default: {DEFAULT_RECIPE} "
        "with --data, the run's own recipe with --resume)",
    )
    add("-o", "--output", **FOLDER)
    add("--resume", type=Path, metavar="RUN")
    add("--data", **FOLDER)
    add("--set", action="append", default=[], metavar="KEY=VALUE")
    add("--memory", type=float, metavar="GB")
    add("--find-rate", **FLAG)
    add("--settings", **FLAG)


def run(arguments: argparse.Namespace) -> int:
    """Train the network, or print the settings."""
    # Set before torch loads OpenMP, whose threads spin at barriers by default: a training step
    # would be ten times slower as soon as another process uses one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from yolact_ros.cli.models import find_checkpoint
    from yolact_ros.runtime.shipped import shipped_file
    from yolact_ros.train.config import read_train_config
    from yolact_ros.train.distributed import join_processes
    from yolact_ros.train.run_folder import claimed, commented_yaml, find_run
    from yolact_ros.train.trainer import Trainer
    from yolact_ros.train.tuning import choose_batch_size, choose_cpu_precision, find_rate

    folder, checkpoint, recipe = None, None, arguments.config
    if arguments.resume:
        folder, checkpoint, kept = find_run(arguments.resume)
        recipe = recipe or kept
    if recipe is None and arguments.data:
        recipe = shipped_file(DEFAULT_RECIPE)
    if recipe is None:
        raise ConfigError(
            "Nothing to train. Name a recipe, e.g. config/train_small.yaml, a data set with "
            "--data, or a run with --resume."
        )
    changes = {**data_changes(arguments.data), **dict(parse_change(t) for t in arguments.set)}
    config = read_train_config(recipe, changes, resume=checkpoint, find_checkpoint=find_checkpoint)
    if arguments.settings:
        print(commented_yaml(config), end="")
        return 0
    name = arguments.data.resolve().name if arguments.data else recipe.stem
    folder = arguments.output or folder or Path("out/train") / name
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(join_processes(config.device))
        level = logging.INFO if processes.first else logging.WARNING
        logging.getLogger("yolact_ros").setLevel(level)
        # Before the recipe is written, so that a resumed run continues with the same.
        config = choose_cpu_precision(config, processes)
        if arguments.memory is not None:
            config = choose_batch_size(config, processes, gigabytes=arguments.memory)
        if arguments.find_rate:
            rate = find_rate(config, processes)
            print(f"Suggested: --set optimizer.learning_rate={rate:.1e}")
            return 0
        if processes.first:
            text = commented_yaml(config)
            stack.enter_context(claimed(folder, text, resume=arguments.resume is not None))
        trainer = Trainer(config, folder, resume=checkpoint, processes=processes)
        trainer.run()
        if processes.first:
            print(trainer.summary())
            best = folder / ("best.pth" if trainer.best_step else "last.pth")
            print(f"Next: yolact export {best} -o models/{folder.name} --half-weights")
    return 0


def data_changes(folder: Path | None) -> dict[str, Any]:
    """Return the settings for a folder that `yolact import-dataset` wrote.

    Raises:
        DatasetError: the folder has no train.json.
    """
    if folder is None:
        return {}
    if not (folder / "train.json").is_file():
        raise DatasetError(
            f"{folder / 'train.json'} does not exist; give --data a folder that `yolact "
            "import-dataset` wrote."
        )
    has_validation = (folder / "val.json").is_file()
    return {
        "training.annotations": str(folder / "train.json"),
        "training.images": str(folder / "train"),
        "validation.annotations": str(folder / "val.json") if has_validation else "",
        "validation.images": str(folder / "val") if has_validation else "",
        "model.classes": "from_annotations",
    }


def parse_change(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE and read the value as YAML.

    Raises:
        ConfigError: there is no equals sign, or the value is not YAML.
    """
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r} is not of the form KEY=VALUE.")
    try:
        parsed = yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML: {error}") from error
    if isinstance(parsed, str):  # YAML reads 1e-3 as a string
        try:
            parsed = float(parsed)
        except ValueError:
            pass
    return key, parsed
