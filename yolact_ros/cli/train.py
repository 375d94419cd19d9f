"""`yolact train`: train a network as a YAML file says."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact train`."""
    parser.add_argument("config", type=Path, help="YAML file, e.g. config/train_tabletop.yaml")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder of checkpoints and logs (out/train/CONFIG)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="CHECKPOINT", help="go on from a run's last.pth"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, e.g. optimizer.learning_rate=0.001; may be repeated",
    )
    parser.add_argument(
        "--settings",
        action="store_true",
        help="print all settings of the run with what they mean, as YAML, and do not train",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, or print the settings."""
    # Before torch loads OpenMP: its threads spin at barriers by default, which makes a training
    # step ten times slower as soon as another process wants one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from yolact_ros.evaluate.training_ap import ApScorer
    from yolact_ros.train.config import read_train_config
    from yolact_ros.train.config_text import commented_yaml
    from yolact_ros.train.distributed import join_processes
    from yolact_ros.train.trainer import Trainer

    changes = dict(parse_change(text) for text in arguments.set)
    config = read_train_config(arguments.config, changes, resume=arguments.resume)
    if arguments.settings:
        print(commented_yaml(config), end="")
        return 0
    folder = arguments.output or Path("out/train") / arguments.config.stem
    with join_processes(config.device) as processes:
        level = logging.INFO if processes.first else logging.WARNING
        logging.getLogger("yolact_ros").setLevel(level)
        trainer = Trainer(
            config, folder, resume=arguments.resume, processes=processes, scorer=ApScorer()
        )
        trainer.run()
        if processes.first:
            print(folder / "last.pth")
    return 0


def parse_change(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE and read the value as YAML.

    Raises:
        ConfigError: there is no equals sign, or the value is not YAML.
    """
    import yaml

    from yolact_ros.errors import ConfigError

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r} is not of the form KEY=VALUE.")
    try:
        parsed = yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML: {error}") from error
    if isinstance(parsed, str):  # YAML takes 1e-3 for a word
        try:
            parsed = float(parsed)
        except ValueError:
            pass
    return key, parsed
