"""Split the sources into tasks that workers take one after another."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from fsspec import AbstractFileSystem

from yolact_ros.bag.files import STORAGES
from yolact_ros.batch.storage import Storage, filesystem_and_path
from yolact_ros.errors import DatasetError, YolactError
from yolact_ros.runtime.images.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, unique_names

PICTURES_PER_TASK: Final = 64
BAG, FRAMES = "bag", "frames"


@dataclass(frozen=True)
class Source:
    """Describes a bag, a video or a picture.

    Attributes:
        fs: its file system.
        path: path of the file or of the bag's folder.
        name: shortest unique end of the path.
        state: changes whenever the content changes.
    """

    fs: Any
    path: str
    name: str
    state: str

    @property
    def suffix(self) -> str:
        """Return the end of the name in lower case, such as `.png`."""
        return PurePosixPath(self.path).suffix.lower()


@dataclass(frozen=True)
class Task:
    """Describes what a worker processes at once: a bag, a video, or some pictures.

    Attributes:
        sources: one source, or several pictures.
        key: hash of everything that the result depends on.
    """

    kind: str
    sources: tuple[Source, ...]
    key: str

    @property
    def record(self) -> str:
        """Return the name of the file that records what was done."""
        return f"parts/{self.key}.json"

    @property
    def table(self) -> str:
        """Return the name of the Parquet file of its instances."""
        return f"instances/{self.key}.parquet"

    @property
    def copy(self) -> str:
        """Return the name of a bag's copy."""
        name = self.sources[0].name
        return f"bags/{name if name.endswith('.mcap') else name + '.mcap'}"

    def is_done(self, names: set[str], *, table: bool) -> bool:
        """Return whether all its results are among the files `names`."""
        expected = {self.record}
        if table:
            expected.add(self.table)
        if self.kind == BAG:
            expected.add(self.copy)
        return expected <= names


def find_sources(addresses: Iterable[str], storage: Storage) -> list[Source]:
    """Find every bag, video and picture at paths or URLs, in folders at any depth.

    Args:
        addresses: files and folders.
        storage: storage of the results, which are excluded.

    Raises:
        DatasetError: nothing is found, or a file system does not respond.
    """
    found: dict[tuple[str, str], tuple[AbstractFileSystem, list[str]]] = {}
    for address in addresses:
        fs, path = filesystem_and_path(address)
        try:
            if not fs.exists(path):
                raise DatasetError(f"{address} does not exist; name files or folders.")
            files = [path] if fs.isfile(path) else _below(fs, path)
            if fs == storage.fs:
                files = [file for file in files if not file.startswith(f"{storage.root}/")]
            groups = _group(files, named=path)
        except YolactError:
            raise
        except Exception as error:  # object store clients have their own exceptions
            raise DatasetError(f"{address} cannot be read: {error}.") from error
        if not groups:
            raise DatasetError(
                f"{address} contains no bags, videos or images; name another folder."
            )
        found.update({(str(fs.protocol), item): (fs, group) for item, group in groups.items()})
    names = unique_names([Path("/", item) for _, item in found])
    return [
        Source(fs, item, name, _digest([fs.ukey(file) for file in files]))
        for name, ((_, item), (fs, files)) in zip(names, found.items(), strict=True)
    ]


def make_tasks(sources: Iterable[Source], settings: Mapping[str, Any]) -> list[Task]:
    """Split sources into tasks: a bag, a video, or up to `PICTURES_PER_TASK` consecutive pictures.

    Args:
        sources: sources in order.
        settings: everything else that the results depend on, as JSON values.

    Raises:
        DatasetError: the copies of two bags would have the same name.
    """
    tasks: list[Task] = []
    for kind, group in _cut(sources):
        states = [(source.name, source.state) for source in group]
        tasks.append(Task(kind, tuple(group), _digest([kind, states, settings])))
    names = Counter(task.copy for task in tasks if task.kind == BAG)
    for name, count in names.items():
        if count > 1:
            raise DatasetError(
                f"{count} bags would be copied to {name}; process them in separate runs."
            )
    return tasks


def _below(fs: AbstractFileSystem, folder: str) -> list[str]:
    return sorted(fs.find(folder), key=lambda path: path.split("/"))


def _group(files: list[str], *, named: str) -> dict[str, list[str]]:
    """Group files by source; a file that was named explicitly is always a source."""
    paths = [PurePosixPath(file) for file in files]
    stored = {path.parent for path in paths if set(path.suffixes) & set(STORAGES)}
    bags = {path.parent for path in paths if path.name == "metadata.yaml"} & stored
    kinds = {*STORAGES, *IMAGE_SUFFIXES, *VIDEO_SUFFIXES}
    groups: dict[str, list[str]] = {}
    for file, path in zip(files, paths, strict=True):
        if path.parent in bags:
            groups.setdefault(str(path.parent), []).append(file)
        elif file == named or path.suffix.lower() in kinds:
            groups[file] = [file]
    return groups


def _cut(sources: Iterable[Source]) -> Iterator[tuple[str, list[Source]]]:
    pictures: list[Source] = []
    for source in sources:
        is_bag = source.suffix in STORAGES or source.fs.isdir(source.path)
        if not is_bag and source.suffix not in VIDEO_SUFFIXES:
            pictures.append(source)
        if pictures and (source is not pictures[-1] or len(pictures) == PICTURES_PER_TASK):
            yield FRAMES, pictures
            pictures = []
        if is_bag or source.suffix in VIDEO_SUFFIXES:
            yield (BAG if is_bag else FRAMES), [source]
    if pictures:
        yield FRAMES, pictures


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
