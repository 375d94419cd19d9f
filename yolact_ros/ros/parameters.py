"""ROS parameters made from configuration dataclasses: one table for defaults, words and bounds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from yolact_ros.config import PostprocessConfig, check_settings, setting
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.backends import BACKENDS
from yolact_ros.runtime.mask_encodings import MASK_ENCODINGS

T = TypeVar("T")


@dataclass(frozen=True)
class ModelSettings:
    """Which model, and what runs it; read once, when the node starts."""

    model: str = setting(
        "", "bundle (folder with model.json) or checkpoint; empty: the model of the package"
    )
    backend: str = setting(
        "auto",
        "library that runs the network; auto: by the kind of model",
        choices=BACKENDS,
    )
    threads: int = setting(0, "threads of the backend; 0: it decides", range=(0, 256))

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class FrameSettings(PostprocessConfig):
    """What may change while the node runs; a change holds from the next image on."""

    mask_encoding: str = setting(
        "bits", "form of the masks in ~/instances", choices=tuple(MASK_ENCODINGS)
    )


def declare_constant(node: Node, defaults: T) -> T:
    """Declare one read-only parameter for each field of a dataclass.

    Args:
        node: the node that gets the parameters.
        defaults: an instance of a frozen dataclass whose fields are made with `setting`.

    Returns:
        The dataclass with the values that the node was started with.

    Raises:
        ConfigError: a value has another type or lies outside its bounds.
    """
    return _declare(node, defaults, read_only=True)


class LiveSettings(Generic[T]):
    """Parameters that may change while the node runs, always as one consistent set.

    Attributes:
        current: the frozen dataclass with the values of this moment. It is replaced, never
            changed, so that a reader who takes it once sees one set of values.
    """

    def __init__(self, node: Node, defaults: T) -> None:
        self.current: T = _declare(node, defaults, read_only=False)
        self._names = {field.name for field in dataclasses.fields(defaults)}  # type: ignore[arg-type]
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in self._names}
        try:
            self.current = dataclasses.replace(self.current, **changes)  # type: ignore[type-var]
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def _declare(node: Node, defaults: T, *, read_only: bool) -> T:
    values = {}
    for field in dataclasses.fields(defaults):  # type: ignore[arg-type]
        default = getattr(defaults, field.name)
        try:
            values[field.name] = node.declare_parameter(
                field.name, default, _descriptor(field, default, read_only)
            ).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(f"Parameter {field.name}: {error}") from None
    return dataclasses.replace(defaults, **values)  # type: ignore[type-var]


def _descriptor(
    field: dataclasses.Field[Any], default: Any, read_only: bool
) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=field.name, description=field.metadata["doc"], read_only=read_only
    )
    constraints = []
    if "choices" in field.metadata:
        constraints.append(f"one of: {', '.join(field.metadata['choices'])}")
    if read_only:
        constraints.append("read when the node starts; restart it to change this")
    descriptor.additional_constraints = "; ".join(constraints)
    if "range" in field.metadata:
        low, high = field.metadata["range"]
        if isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
