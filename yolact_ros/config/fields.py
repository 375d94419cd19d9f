"""Define configuration fields with their own documentation and bounds."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from typing import Any

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
    special = re.search(r"\(\S+ = [^()]*\)$", text)
    return f"{text[:-1]}; {', '.join(notes)})" if special else f"{text} ({', '.join(notes)})"


class Checked:
    """Checks every field made with `setting` on construction; base class of configurations.

    A subclass describes its fields to users under `Attributes` in its docstring; help, parameters
    and documentation quote that.
    """

    def __init_subclass__(cls) -> None:
        """Add the descriptions in the docstring to the fields, as `doc` in their metadata."""
        text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
        docs = {name: " ".join(entry.split()).removesuffix(".") for name, entry in entries}
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
