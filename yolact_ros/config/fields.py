"""Define fields of configurations, and convert these to and from mappings."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from yolact_ros.errors import ConfigError


def setting(
    default: Any,
    *,
    range: tuple[float, float] | None = None,  # noqa: A002 - the name that metadata uses
    choices: tuple[str, ...] | None = None,
    for_papers: bool = False,
) -> Any:
    """Return a dataclass field with bounds, which the docstring of its class describes.

    Args:
        default: default value.
        range: lowest and highest value.
        choices: all allowed values.
        for_papers: whether it only reproduces published numbers; such a setting is not a
            parameter of the node.
    """
    metadata: dict[str, Any] = {"for_papers": for_papers}
    if range is not None:
        metadata["range"] = range
    if choices is not None:
        metadata["choices"] = choices
    return dataclasses.field(default=default, metadata=metadata)


def with_notes(text: str, *notes: str) -> str:
    """Append notes in parentheses, together with those of a special value, as in `(0 = off)`."""
    inside = "; ".join(notes)
    if not text or not inside:
        return text + inside
    special = re.search(r"\(\S+ = [^()]*\)$", text)
    return f"{text[:-1]}; {inside})" if special else f"{text} ({inside})"


def describe(field: dataclasses.Field[Any], *notes: str, choices: bool = True) -> str:
    """Return the meaning of a setting with its range, and with choices that it does not name.

    Args:
        field: field made with `setting`.
        notes: further notes, such as the default.
        choices: whether choices may be listed.
    """
    text: str = field.metadata.get("doc", "")
    limits = []
    names = field.metadata.get("choices", ())
    if choices and not all(re.search(rf"\b{name}\b", text) for name in names):
        limits.append(f"one of {', '.join(names)}")
    if "range" in field.metadata:
        low, high = field.metadata["range"]
        limits.append(f"{low:,.10g} to {high:,.10g}")
    return with_notes(text, *limits, *notes)


def docstring_entries(doc: str | None, section: str) -> dict[str, str]:
    """Return what a section of a docstring says about each name, without the last period."""
    text = inspect.cleandoc(doc or "").partition(f"{section}:\n")[2]
    entries = re.findall(r"^    ([\w-]+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(entry.split()).removesuffix(".") for name, entry in entries}


class Checked:
    """Checks every field made with `setting` on construction; base class of configurations.

    A subclass describes its fields to users under `Attributes` in its docstring; help, parameters
    and documentation quote that.
    """

    def __init_subclass__(cls) -> None:
        """Add the descriptions in the docstring to the fields, as `doc` in their metadata."""
        docs = docstring_entries(cls.__doc__, "Attributes")
        for name, field in vars(cls).items():
            if isinstance(field, dataclasses.Field):
                described = {**field.metadata, "doc": docs.get(name, "")}
                field.metadata = types.MappingProxyType(described)

    def __post_init__(self) -> None:
        """Check every field against its range or choices.

        Raises:
            ConfigError: a value is out of bounds; the message names the field, the value and the
                bounds.
        """
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            where = f"{type(self).__name__}.{field.name}"
            if "range" in field.metadata:
                low, high = field.metadata["range"]
                if not low <= value <= high:
                    raise ConfigError(
                        f"{where} is {value}; expected a value from {low} to {high}."
                    )
            if "choices" in field.metadata and value not in field.metadata["choices"]:
                expected = ", ".join(field.metadata["choices"])
                raise ConfigError(f"{where} is {value!r}; expected one of: {expected}.")


T = TypeVar("T")


def override(config: T, changes: Mapping[str, Any], *, where: str = "") -> T:
    """Return `config` with `changes` applied; nested dataclasses accept nested mappings.

    Args:
        config: any frozen dataclass of this package.
        changes: field name to value, as read from YAML or JSON (lists become tuples).
        where: path of the field that holds `config`, for the error message.

    Raises:
        ConfigError: a key is unknown (the message lists similar ones) or a value has the wrong
            type.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(config))
    values: dict[str, Any] = {}
    for key, value in changes.items():
        path = f"{where}.{key}" if where else key
        if not isinstance(key, str):
            raise ConfigError(f"Unknown setting {path!r}; names of settings are strings.")
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=3) or sorted(fields)
            raise ConfigError(f"Unknown setting {path!r}; did you mean {', '.join(near)}?")
        nested = _dataclass_of(hints[key])
        if nested is not None and isinstance(value, Mapping):
            current = getattr(config, key)
            values[key] = override(nested() if current is None else current, value, where=path)
        else:
            values[key] = _coerce(value, hints[key], path)
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def to_mapping(config: Any) -> dict[str, Any]:
    """Convert a configuration to dicts, lists and scalars for JSON and YAML."""
    return {
        field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)
    }


def _dataclass_of(hint: Any) -> Any:
    """Return the dataclass of a field, even if it may be None; otherwise None."""
    kinds = (hint, *typing.get_args(hint))
    return next((k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)), None)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _coerce(value: Any, hint: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} is {value!r}; expected a list.")
        arguments = typing.get_args(hint)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            items = [arguments[0]] * len(value)
        else:
            items = list(arguments)
            if len(items) != len(value):
                raise ConfigError(f"{path} has {len(value)} values; expected {len(items)}.")
        return tuple(_coerce(item, kind, path) for item, kind in zip(value, items, strict=True))
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _coerce(value, next(a for a in typing.get_args(hint) if a is not type(None)), path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 10**300:
            raise ConfigError(f"{path} is too large; expected a number below 1e300.")
        return float(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))
    ):
        raise ConfigError(f"{path} is {value!r}; expected a value of type {hint.__name__}.")
    return value
