"""Command-line flags made from configuration dataclasses: one table for defaults and words."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

from yolact_ros.config import (
    REFERENCE_POSTPROCESS,
    BackendConfig,
    KeyframeConfig,
    PostprocessConfig,
    TrackerConfig,
)

T = TypeVar("T")


def add_postprocess_arguments(
    parser: argparse.ArgumentParser, defaults: PostprocessConfig
) -> None:
    """Declare how detections are chosen: a flag for each setting, and `--reference`."""
    group = parser.add_argument_group("detections")
    group.add_argument(
        "--reference",
        action="store_true",
        help="choose detections exactly as the authors' evaluation does; the flags below may "
        "still change single settings",
    )
    _add_settings(group, defaults)


def read_postprocess_settings(
    arguments: argparse.Namespace, defaults: PostprocessConfig
) -> PostprocessConfig:
    """The settings that were asked for with the flags of `add_postprocess_arguments`.

    Raises:
        ConfigError: a value lies outside its range.
    """
    return _read_settings(arguments, REFERENCE_POSTPROCESS if arguments.reference else defaults)


def add_keyframe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare when frames of a video are keyframes: a flag for each setting."""
    group = parser.add_argument_group("videos, with a model that was exported with --keyframes")
    _add_settings(group, KeyframeConfig())


def read_keyframe_settings(arguments: argparse.Namespace) -> KeyframeConfig:
    """The settings that were asked for with the flags of `add_keyframe_arguments`.

    Raises:
        ConfigError: a value lies outside its range.
    """
    return _read_settings(arguments, KeyframeConfig())


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how objects of a video keep their numbers: a flag for each setting."""
    _add_settings(parser.add_argument_group("objects of videos"), TrackerConfig())


def read_tracker_settings(arguments: argparse.Namespace) -> TrackerConfig:
    """The settings that were asked for with the flags of `add_tracker_arguments`.

    Raises:
        ConfigError: a value lies outside its range.
    """
    return _read_settings(arguments, TrackerConfig())


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what runs the model: a flag for each setting."""
    _add_settings(parser.add_argument_group("backend"), BackendConfig())


def read_backend_settings(arguments: argparse.Namespace) -> BackendConfig:
    """Return the settings given with the flags of `add_backend_arguments`.

    Raises:
        ConfigError: a value lies outside its range.
    """
    return _read_settings(arguments, BackendConfig())


def _add_settings(group: Any, defaults: Any) -> None:
    """Declare one flag for each field of a dataclass whose fields are made with `setting`.

    A flag that is not given is None, so that it can be told from one with the default's value.
    """
    for field in dataclasses.fields(defaults):
        default = getattr(defaults, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        text = field.metadata["doc"]
        if isinstance(default, bool):
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                help=f"{text} (default: {'yes' if default else 'no'})",
            )
            continue
        if "range" in field.metadata:
            text += ", {:g} to {:g}".format(*field.metadata["range"])
        group.add_argument(
            flag,
            type=type(default),
            choices=field.metadata.get("choices"),
            metavar=None if "choices" in field.metadata else "X",
            help=f"{text} (default: {default})",
        )


def _read_settings(arguments: argparse.Namespace, defaults: T) -> T:
    """`defaults`, changed by the flags that were given."""
    names = [field.name for field in dataclasses.fields(defaults)]  # type: ignore[arg-type]
    given = {name: getattr(arguments, name) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(defaults, **changes)  # type: ignore[type-var]
