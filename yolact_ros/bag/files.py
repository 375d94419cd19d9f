"""Open, read and copy bags on disk, and manage the working folder of an unfinished bag."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader, StoragePlugin, Writer, WriterError

from yolact_ros.bag.messages import IMAGE_TYPES, typestore
from yolact_ros.errors import DatasetError

# Suffix of a bag that is a single file -> storage.
STORAGES = {".mcap": StoragePlugin.MCAP, ".db3": StoragePlugin.SQLITE3}
UNKNOWN_HASH = f"RIHS01_{'0' * 64}"


@contextmanager
def open_bag(path: Path) -> Iterator[Reader]:
    """Open a bag for reading: a folder written by `ros2 bag record`, or one of its files.

    Raises:
        DatasetError: the bag does not exist or cannot be read.
    """
    with _reading(path):
        metadata = path.is_dir() and (path / "metadata.yaml").exists()
    if path.is_dir() and not metadata:
        raise DatasetError(
            f"The folder {path} has no metadata.yaml, so it is not a complete bag. Name the .mcap "
            f"or .db3 file itself, or repair the bag: ros2 bag reindex {path}"
        )
    if not path.is_dir() and (
        path.suffix not in STORAGES or (path.exists() and not path.is_file())
    ):
        raise DatasetError(
            f"{path} is not a bag; expected a folder written by `ros2 bag record`, or a file "
            f"that ends in {' or '.join(STORAGES)}."
        )
    with _reading(path):
        reader = Reader(path)
        reader.open()
    try:
        _check_metadata(path, reader)
        yield reader
    finally:
        reader.close()


def _check_metadata(path: Path, reader: Reader) -> None:
    """Check that the metadata of a bag describe files that can be read completely.

    Raises:
        DatasetError: files are listed twice or not at all, counts are not numbers, messages are
            not in CDR, or a database has a log that was not written back.
    """
    inner: Any = reader.storage
    storages = [storage.path for storage in getattr(inner, "storages", [inner])]
    files = [file for file in storages if isinstance(file, Path)]
    different = {file.resolve() for file in files}
    if not storages or len(different) < len(files):
        raise DatasetError(
            f"The bag {path} lists {len(storages)} files, of which {len(different)} differ; "
            f"expected each file once. Repair it: ros2 bag reindex {path}"
        )
    for file in files:
        for suffix in ("-wal", "-journal"):
            log = file.with_name(file.name + suffix)
            if log.exists() and log.stat().st_size:
                raise DatasetError(
                    f"The recording of {file} was interrupted: {log.name} holds messages that are "
                    f"not in it. Write them back first: sqlite3 {file} 'PRAGMA wal_checkpoint;'"
                )
    for connection in reader.connections:
        form = getattr(connection.ext, "serialization_format", "cdr")
        if type(connection.msgcount) is not int or connection.msgcount < 0:
            raise DatasetError(
                f"The metadata of the bag {path} give {connection.msgcount!r} as the number of "
                f"messages on {connection.topic}; expected a whole number. Repair the bag: ros2 "
                f"bag reindex {path}"
            )
        if form != "cdr":
            raise DatasetError(
                f"The bag {path} has messages in the encoding {form!r} on {connection.topic}; "
                "expected cdr, as ROS 2 records them."
            )


def read_messages(
    reader: Reader, connections: list[Connection]
) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield the messages of `connections` with their recording time in nanoseconds, in order.

    Raises:
        DatasetError: the bag is damaged.
    """
    messages = reader.messages(connections)
    while True:
        with _reading(reader.path):
            message = next(messages, None)
        if message is None:
            return
        yield message


@contextmanager
def _reading(path: Any) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatasetError(f"The bag {path} cannot be read: {error}.") from error
    except Exception as error:  # also errors of apsw, lz4, zstd and struct
        raise DatasetError(
            f"The bag {path} is damaged: {error or type(error).__name__}. An interrupted "
            "recording can often be repaired by `ros2 bag reindex`, or `mcap recover` for .mcap."
        ) from error


def storage_of(source: Path, target: Path, reader: Reader) -> StoragePlugin:
    """Return the storage of a new bag, according to its name or else as in the source."""
    if target.suffix in STORAGES:
        return STORAGES[target.suffix]
    if source.is_dir():
        suffixes = {file.suffix for file in source.iterdir()} & set(STORAGES)
        return STORAGES[min(suffixes, default=".mcap")]
    return STORAGES[source.suffix]


def find_images(reader: Reader, topic: str | None) -> list[Connection]:
    """Find the connections with the images of a topic; several if publishers differed in QoS.

    Args:
        reader: open bag.
        topic: name of the topic; None for the only image topic of the bag.

    Raises:
        DatasetError: there is no such topic, or there are several.
    """
    if topic is None:
        images = [c for c in reader.connections if c.msgtype in IMAGE_TYPES and c.msgcount]
        topics = list(dict.fromkeys(connection.topic for connection in images))
        if len(topics) != 1:
            raise DatasetError(
                f"The bag {reader.path} has {len(topics)} image topics "
                f"({', '.join(topics) or 'none'}); name one with --topic."
            )
        (topic,) = topics
    return find_connections(reader, topic, IMAGE_TYPES, what="images")


def find_connections(
    reader: Reader, topic: str, kinds: Sequence[str], *, what: str
) -> list[Connection]:
    """Find the connections of a topic whose message type is among `kinds`.

    Raises:
        DatasetError: there are no such messages on it; the message calls them `what`.
    """
    found = [c for c in reader.connections if c.msgtype in kinds and c.msgcount]
    matching = [c for c in found if c.topic == f"/{topic.lstrip('/')}"]
    if not matching:
        known = ", ".join(dict.fromkeys(connection.topic for connection in found)) or "none"
        raise DatasetError(
            f"The bag {reader.path} has no {what} on {topic}; topics with {what}: {known}."
        )
    return matching


def copy_connections(writer: Writer, connections: list[Connection]) -> dict[int, Connection]:
    """Declare the topics of another bag; return the copies by their ids in that bag."""
    copies: dict[int, Connection] = {}
    equals: dict[tuple[str, str, str], Connection] = {}
    for connection in connections:
        key = (connection.topic, connection.msgtype, repr(connection.ext))
        if key not in equals:
            equals[key] = copy_connection(writer, connection)
        copies[connection.id] = equals[key]
    return copies


def copy_connection(writer: Writer, connection: Connection) -> Connection:
    """Declare a topic of another bag with its definition, hash and QoS."""
    known = connection.msgtype in typestore().types
    defined = connection.msgdef.format is not MessageDefinitionFormat.NONE
    ext: Any = connection.ext
    return writer.add_connection(
        connection.topic,
        connection.msgtype,
        typestore=typestore() if known and not (defined and connection.digest) else None,
        msgdef=connection.msgdef.data if defined or not known else None,
        rihs01=connection.digest or (None if known else UNKNOWN_HASH),
        serialization_format=ext.serialization_format,
        offered_qos_profiles=ext.offered_qos_profiles,
    )


@dataclass(frozen=True)
class WorkingFolder:
    """Represents the working folder of an unfinished bag, beside its target.

    Attributes:
        target: finished bag: a folder, or a single file if it has a suffix of `STORAGES`.
    """

    target: Path

    @property
    def folder(self) -> Path:
        """Return the folder of everything that an unfinished run leaves."""
        return self.target.with_name(f"{self.target.name}.partial")

    @property
    def bag(self) -> Path:
        """Return the path of the unfinished bag; its name is part of the names of its files."""
        is_file = self.target.suffix in STORAGES
        # In its own folder, because a bag may have the same name as the journal.
        return self.folder / "bag" / (self.target.stem if is_file else self.target.name)

    def prepare(self) -> None:
        """Create the folder, and remove any unfinished bag from it.

        Raises:
            DatasetError: the target exists, or the folder cannot be created.
        """
        if os.path.lexists(self.target):  # also a dangling link
            raise DatasetError(f"{self.target} already exists; remove it, or name another target.")
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)

    def clear_bag(self) -> None:
        """Remove an unfinished bag but keep the results."""
        shutil.rmtree(self.bag.parent, ignore_errors=True)

    def finish(self) -> None:
        """Move the complete bag to its target and remove the working folder.

        Raises:
            DatasetError: the bag cannot be moved.
        """
        with self.writing():
            if self.target.suffix in STORAGES:
                (self.bag / f"{self.bag.name}{self.target.suffix}").rename(self.target)
            else:
                self.bag.rename(self.target)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn errors while writing into a `DatasetError`.

        Raises:
            DatasetError: the disk is full, or writing fails for another reason.
        """
        try:
            yield
        except (OSError, sqlite3.Error, WriterError) as error:
            raise DatasetError(
                f"{self.target} cannot be written: {error}. The results so far are kept in "
                f"{self.folder}; free some space and run the same command again to continue."
            ) from error
