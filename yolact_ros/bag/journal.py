"""Record the results of an unfinished run, so that the next run can reuse them."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.errors import DatasetError

FAILED, KEYFRAME, PARTIAL = range(3)  # kinds of entries

_HEAD = struct.Struct("<BII")  # kind, length and CRC-32 of the content


@dataclass(frozen=True)
class Entry:
    """Holds the result of one image.

    Attributes:
        kind: `FAILED`, or the frame type `KEYFRAME` or `PARTIAL`.
        content: detections packed by `bag.records`, or the message of a failure in UTF-8.
    """

    kind: int
    content: bytes


class Journal:
    """Stores one entry per image in a file, in order.

    Its length is the number of reusable entries of an earlier run with the same identity. They end
    before the last keyframe, because the following images need the features of that keyframe,
    which are lost. Incomplete entries at the end of a killed run are ignored as well.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Open the file, and empty it if it belongs to a run with another identity.

        Args:
            path: journal file.
            identity: everything that the results depend on, as JSON values.

        Raises:
            DatasetError: another process has opened the file.
            OSError: the file cannot be opened.
        """
        self._file = open(path, "a+b")  # noqa: SIM115 - held until the end of the `with` block
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise DatasetError(
                f"{path} is in use: another run is writing the same bag; wait for it or stop it."
            ) from None
        title = (json.dumps(identity, sort_keys=True) + "\n").encode()
        self._file.seek(0)
        self._offsets: list[int] = []
        if self._file.readline() == title:
            self._end: int | None = self._find_entries()
        else:
            self._file.truncate(0)
            self._file.write(title)
            self._file.flush()
            self._end = None

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Entry:
        self._file.seek(self._offsets[index])
        kind, length, _ = _HEAD.unpack(self._file.read(_HEAD.size))
        return Entry(kind, self._file.read(length))

    def append(self, entry: Entry) -> None:
        """Append an entry so that it survives the end of the process.

        The first entry replaces those of an earlier run from its last keyframe on.

        Raises:
            OSError: the entry cannot be written.
        """
        if self._end is not None:
            self._file.truncate(self._end)
            self._end = None
        content = entry.content
        head = _HEAD.pack(entry.kind, len(content), zlib.crc32(content))
        self._file.write(head + content)
        self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _find_entries(self) -> int:
        """Fill `_offsets`; return the offset at which the reusable entries end."""
        offsets: list[int] = []
        last_keyframe, end = 0, self._file.tell()
        size = os.fstat(self._file.fileno()).st_size
        while True:
            offset = self._file.tell()
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            kind, length, checksum = _HEAD.unpack(head)
            if kind > PARTIAL or length > size:
                break
            content = self._file.read(length)
            if len(content) < length or zlib.crc32(content) != checksum:
                break
            if kind == KEYFRAME:
                last_keyframe, end = len(offsets), offset
            offsets.append(offset)
        self._offsets = offsets[:last_keyframe]
        return end
