"""Declare ROS parameters from dataclasses, which define defaults, descriptions and bounds."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from yolact_ros.errors import ConfigError
from yolact_ros.ros.parameters.settings import READ_BY_CONFIGURE, Settings, parameter_fields

T = TypeVar("T")

READ_AT_START = "read when the node starts; restart it to change this"
READ_AT_CONFIGURE = "read by the transition configure"


def declare_constant(node: Node, defaults: T) -> T:
    """Declare one read-only parameter for each field of a dataclass.

    Args:
        node: the node to declare the parameters on.
        defaults: an instance of a frozen dataclass whose fields are made with `setting`.

    Returns:
        The dataclass with the parameter values.

    Raises:
        ConfigError: a value has the wrong type or is out of bounds.
    """
    return _declare(node, defaults, note=READ_AT_START, read_only=True)


class NodeParameters:
    """Holds all parameters of `Settings` as one consistent set.

    Attributes:
        current: the current values. The object is replaced, never changed, so that a reader who
            fetches it once sees one consistent set.
        configured: while true, what `configure` reads cannot be changed.
        check: further conditions of the open model; raises ConfigError.
    """

    def __init__(self, node: Node, defaults: Settings) -> None:
        """Declare the parameters.

        Raises:
            ConfigError: a value has the wrong type or is out of bounds.
        """
        self.configured = False
        self.check: Callable[[Settings], None] = lambda settings: None
        self._table_of: dict[str, str] = {}  # parameter -> field of Settings
        tables = {}
        for table in dataclasses.fields(defaults):
            values = getattr(defaults, table.name)
            note = READ_AT_CONFIGURE if table.name in READ_BY_CONFIGURE else ""
            tables[table.name] = _declare(node, values, note=note)
            for field in parameter_fields(values):
                self._table_of[field.name] = table.name
        self.current = Settings(**tables)
        # Transitions and parameter services may run in other threads.
        self._lock = threading.Lock()
        self._logger = node.get_logger()
        node.add_on_set_parameters_callback(self._on_set)
        # Another callback may still reject what this one accepts, so the change waits until all
        # have agreed; Humble has no callback for that point.
        self._applies_later = hasattr(node, "add_post_set_parameters_callback")
        if self._applies_later:
            node.add_post_set_parameters_callback(self._apply)

    def freeze(self) -> Settings:
        """Reject changes to the settings that `configure` reads, and return all settings."""
        with self._lock:
            self.configured = True
            return self.current

    def guard(self, check: Callable[[Settings], None]) -> None:
        """Check the current settings and every later change.

        Raises:
            ConfigError: the current settings fail the check, because they changed after `freeze`.
        """
        with self._lock:
            check(self.current)
            self.check = check

    def thaw(self) -> None:
        """Allow all changes."""
        with self._lock:
            self.check = lambda settings: None
            self.configured = False

    def _on_set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        try:
            with self._lock:
                changed = self._changed(parameters)
                if not self._applies_later:
                    self.current = changed
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, parameters: list[Parameter[Any]]) -> None:
        try:
            with self._lock:
                self.current = self._changed(parameters)
        except ConfigError as error:  # a transition came between the check and this call
            self._logger.warning(f"A parameter change has no effect: {error}")

    def _changed(self, parameters: list[Parameter[Any]]) -> Settings:
        changes: dict[str, dict[str, Any]] = {}
        for parameter in parameters:
            if parameter.name in self._table_of:
                table = self._table_of[parameter.name]
                changes.setdefault(table, {})[parameter.name] = _value(parameter)
        tables = {
            name: dataclasses.replace(getattr(self.current, name), **values)
            for name, values in changes.items()
        }
        settings = dataclasses.replace(self.current, **tables)
        if self.configured:
            for name in READ_BY_CONFIGURE:
                if getattr(settings, name) != getattr(self.current, name):
                    raise ConfigError(
                        f"{', '.join(changes[name])} is read by the transition configure, and the "
                        "node is configured; deactivate and clean it up first "
                        "(ros2 lifecycle set NODE cleanup)."
                    )
            self.check(settings)
        return settings


def _value(parameter: Parameter[Any]) -> Any:
    """Return a parameter's value as dataclasses store it."""
    if parameter.type_ == Parameter.Type.STRING_ARRAY:
        return tuple(parameter.value)
    return parameter.value


def _declare(node: Node, defaults: T, *, note: str, read_only: bool = False) -> T:
    values = {}
    for field in parameter_fields(defaults):
        default = getattr(defaults, field.name)
        descriptor = _descriptor(field, default, note)
        descriptor.read_only = read_only
        if isinstance(default, tuple):
            default = list(default)
        try:
            node.declare_parameter(field.name, default, descriptor)
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(f"Parameter {field.name}: {error}") from None
        values[field.name] = _value(node.get_parameter(field.name))
    return dataclasses.replace(defaults, **values)  # type: ignore[type-var]


def _descriptor(field: dataclasses.Field[Any], default: Any, note: str) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(name=field.name, description=field.metadata["doc"])
    constraints = []
    if "choices" in field.metadata:
        constraints.append(f"one of: {', '.join(field.metadata['choices'])}")
    if note:
        constraints.append(note)
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
