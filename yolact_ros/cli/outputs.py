"""Check that every path that a verb writes is writable and not an input."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from yolact_ros.errors import ConfigError
from yolact_ros.files import shown

# Names of output arguments; every other path is read.
WRITTEN = ("output", "json", "overlay", "report", "target", "save_txt")
# Verbs whose `output` is a file, and results that are folders with every verb.
FILE_VERBS = ("convert", "prototypes", "view")
FOLDERS = ("overlay", "report", "save_txt")
# Arguments that are kept as text, because they may be a path or something else.
TEXTS = ("model", "models", "bundle", "checkpoint", "sources", "output")
# Folders that a verb both reads and writes.
SHARED = ("resume",)


def check_outputs(arguments: argparse.Namespace) -> None:
    """Fail early if a result cannot be written.

    Raises:
        ConfigError: an output is an input or inside one, or cannot be written.
    """
    inputs = [path for name, path in _paths(arguments) if name not in (*WRITTEN, *SHARED)]
    for name, path in _paths(arguments):
        if name not in WRITTEN:
            continue
        try:
            _check(path, inputs)
            if name in FOLDERS or (name == "output" and arguments.verb not in FILE_VERBS):
                _refuse_other(path, path.is_dir(), "a folder")
            elif name == "output":
                _refuse_other(path, path.is_file(), "a regular file")
            if name == "json":
                _probe(path)
        except (OSError, ValueError) as error:  # impossible file name
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{shown(path)} cannot be written: {reason}.") from error


def refuse_inputs(written: Iterable[Path], inputs: Iterable[Path | str]) -> None:
    """Fail if a file whose name a verb chooses itself is one of its inputs.

    Args:
        written: files that the verb writes.
        inputs: files that it reads; addresses of cameras and streams, as text, are none.

    Raises:
        ConfigError: it would be overwritten.
    """
    files = [path for path in inputs if isinstance(path, Path) and path.exists()]
    ids = {(state.st_dev, state.st_ino) for state in map(Path.stat, files)}
    for path in written:
        if path.exists() and (path.stat().st_dev, path.stat().st_ino) in ids:
            raise ConfigError(
                f"{shown(path)} is an input; it would be overwritten. Name another output."
            )


def _paths(arguments: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    for name, value in vars(arguments).items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Path):
                yield name, item
                if name not in WRITTEN and glob.has_magic(str(item)):
                    yield from (
                        (name, Path(file)) for file in glob.glob(str(item), recursive=True)
                    )
            elif isinstance(item, str) and item and name in TEXTS:
                yield name, Path(item)


def _check(path: Path, inputs: list[Path]) -> None:
    path.lstat() if path.is_symlink() else path.exists()  # raises for an impossible name
    os.stat(path.parent) if path.parent.exists() else None
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{shown(path)} cannot be written: its name is not UTF-8, which OpenCV requires."
        ) from None
    for source in inputs:
        if _same(path, source):
            raise ConfigError(
                f"{shown(path)} is an input; it would be overwritten. Name another output."
            )
        inside = source.is_dir() and path.is_file() and _contains(source, path)
        if inside:
            raise ConfigError(
                f"{shown(path)} is a file of the input {shown(source)}; it would be overwritten. "
                "Name another output, or remove it first."
            )
    if os.path.lexists(path) and not path.exists():
        raise ConfigError(
            f"{shown(path)} is a link to a file that does not exist; remove it first."
        )
    above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if above != path and not above.is_dir():
        raise ConfigError(f"{shown(path)} cannot be written: {shown(above)} is not a folder.")
    if not os.access(above, os.W_OK):
        raise ConfigError(
            f"{shown(path)} cannot be written: this user may not write to {shown(above)}."
        )


def _refuse_other(path: Path, is_kind: bool, kind: str) -> None:
    if path.exists() and not is_kind:
        raise ConfigError(f"{shown(path)} exists and is not {kind}; name another output.")


def _probe(path: Path) -> None:
    """Open a file for writing, without changing it or leaving a new one."""
    existed = path.exists()
    # Without O_NONBLOCK, opening a FIFO blocks until somebody reads from it.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
    if not existed:
        path.unlink()


def _same(first: Path, second: Path) -> bool:
    if first.exists() and second.exists():
        return first.samefile(second)
    return os.path.realpath(first) == os.path.realpath(second)


def _contains(folder: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
