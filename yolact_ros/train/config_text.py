"""Format the full configuration of a training run as commented YAML."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from yolact_ros.config import describe, to_mapping
from yolact_ros.train.config import TrainConfig


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
