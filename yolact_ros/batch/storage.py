"""Access files on any file system of fsspec: this machine, S3, Google Cloud and others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from yolact_ros.errors import DatasetError


def filesystem_and_path(address: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path or URL, and the path within it.

    Raises:
        DatasetError: the protocol is unknown, or its library is not installed.
    """
    if "://" not in address:
        return LocalFileSystem(), os.path.abspath(address)
    try:
        return url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise DatasetError(f"{address} cannot be reached: {error}.") from error


@contextmanager
def local_copy(fs: AbstractFileSystem, path: str) -> Iterator[Path]:
    """Yield a local path of a file or folder; a remote one is copied."""
    if isinstance(fs, LocalFileSystem):
        yield Path(path)
        return
    with TemporaryDirectory(prefix="yolact-") as folder:
        copy = Path(folder) / Path(path).name
        fs.get(path, str(copy), recursive=True)
        yield copy


@dataclass(frozen=True)
class Storage:
    """Represents a folder of results on a file system that every worker can reach.

    Attributes:
        fs: the file system.
        root: path of the folder within it.
    """

    fs: Any
    root: str

    def check(self) -> None:
        """Write a file and remove it.

        Raises:
            DatasetError: results cannot be written, or the folder holds something else.
        """
        ours = any(self.fs.isdir(f"{self.root}/{name}") for name in ("parts", "unfinished"))
        if not ours and self.fs.isdir(self.root) and self.fs.ls(self.root):
            raise DatasetError(
                f"{self.root} contains files that yolact batch did not write; name a new folder."
            )
        try:
            with self.scratch() as folder:
                (folder / "probe").touch()
                self.keep(folder / "probe", "probe")
            self.remove("probe")
        except Exception as error:  # object store clients have their own exceptions
            raise DatasetError(f"{self.root} cannot be written: {error}.") from error

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a local folder for incomplete files.

        On a local file system it is kept, so that the next run can continue a bag.
        """
        if isinstance(self.fs, LocalFileSystem):
            folder = Path(self.root) / "unfinished"
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
        else:
            with TemporaryDirectory(prefix="yolact-") as temporary:
                yield Path(temporary)

    def keep(self, file: Path, name: str) -> None:
        """Move a complete file from the scratch folder into the folder, atomically for readers."""
        target = f"{self.root}/{name}"
        if isinstance(self.fs, LocalFileSystem):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        else:
            self.fs.put_file(str(file), target)
            file.unlink()

    def names(self) -> set[str]:
        """Return the paths of all its files, relative to the folder."""
        self.fs.invalidate_cache()
        return {file.removeprefix(f"{self.root}/") for file in self.fs.find(self.root)}

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return bytes(self.fs.cat_file(f"{self.root}/{name}"))

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.fs.rm_file(f"{self.root}/{name}")
