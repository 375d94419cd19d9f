"""Manage the folder of a training run: exclusive access, recipe, and files needed to resume."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from yolact_ros.config import describe, to_mapping
from yolact_ros.errors import ConfigError
from yolact_ros.files import replace_file
from yolact_ros.train.config import TrainConfig

LAST = "last.pth"
BEST = "best.pth"
RECIPE = "recipe.yaml"
LOCK = ".lock"
LOSSES = "losses.csv"


@contextlib.contextmanager
def claimed(folder: Path, recipe: str, *, resume: bool) -> Iterator[None]:
    """Lock the folder of a run for this process and write the resolved recipe into it.

    Args:
        folder: folder of the run; created if absent.
        recipe: settings of the run as YAML.
        resume: whether the run resumes; otherwise the folder must not contain a run.

    Raises:
        ConfigError: the folder contains a run, another training uses it, or it cannot be
            written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} of the run cannot be written: {error}. Choose another one with "
            "-o."
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"Another run is using {folder}; wait for it, or choose another folder with -o."
            ) from error
        except OSError:  # a file system without locks
            pass
        traces = _traces(folder)
        if traces and not resume:
            raise ConfigError(
                f"{folder} already contains a run ({', '.join(traces)}). Continue it with "
                f"--resume {folder}, or choose another folder with -o."
            )
        _write_recipe(folder, recipe)
        yield
    finally:
        os.close(lock)


def _traces(folder: Path) -> list[str]:
    """Return the files that show that a run has done at least one step."""
    traces = [name for name in (LAST, BEST) if (folder / name).exists()]
    log = folder / LOSSES
    try:
        done = log.is_file() and log.read_bytes().count(b"\n") > 1  # besides the header
    except OSError:
        done = True
    return [*traces, LOSSES] if done else traces


def _write_recipe(folder: Path, recipe: str) -> None:
    try:
        replace_file(folder / RECIPE, recipe.encode())
    except OSError as error:
        raise ConfigError(f"{folder / RECIPE} cannot be written: {error}.") from error


def find_run(resume: Path) -> tuple[Path, Path | None, Path | None]:
    """Find the run that `--resume` names by its folder or a checkpoint.

    Returns:
        Folder of the run, its newest checkpoint (None before the first one was written) and its
        recipe (None for runs without one).

    Raises:
        ConfigError: there is no run.
    """
    folder = resume if resume.is_dir() else resume.parent
    checkpoint = folder / LAST if resume.is_dir() else resume
    recipe = folder / RECIPE
    if not checkpoint.exists():
        if not (resume.is_dir() and recipe.is_file()):
            raise ConfigError(
                f"--resume {resume}: there is no {checkpoint}; name the folder of a run, or a "
                f"{LAST}."
            )
        return folder, None, recipe
    return folder, checkpoint, recipe if recipe.is_file() else None


def commented_yaml(config: TrainConfig) -> str:
    """Format every setting with its value and meaning; `read_train_config` reads it back."""
    return "\n".join(_lines(config, indent=0)) + "\n"


def _lines(config: Any, *, indent: int) -> list[str]:
    lines = []
    margin = " " * indent
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            lines += [f"{margin}{field.name}:", *_lines(value, indent=indent + 2)]
            continue
        comment = _comment(field, value)
        lines += [f"{margin}# {comment}"] if comment else []
        lines.append(
            f"{margin}{field.name}: {_scalar(field.name, to_mapping(config)[field.name])}"
        )
    return lines


def _comment(field: dataclasses.Field[Any], value: Any) -> str:
    """Describe a setting, with its default if the value differs."""
    if field.default in (dataclasses.MISSING, "", value):
        return describe(field)
    return describe(field, f"default: {_scalar(field.name, field.default)}")


def _scalar(name: str, value: Any) -> str:
    """Format a value on one line of YAML."""
    if name == "freeze_batch_norm" and value is None:
        return "auto"
    if isinstance(value, tuple):
        value = [list(item) if isinstance(item, tuple) else item for item in value]
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
