"""Results of an unfinished run, so that the next one does not compute them again."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from yolact_ros.errors import DatasetError

FAILED, KEYFRAME, PARTIAL = range(3)  # kinds of results

_HEAD = struct.Struct("<BII")  # kind, length and CRC-32 of the content


@dataclass(frozen=True)
class Entry:
    """What became of one image.

    Attributes:
        kind: `FAILED`, or by the frame's type `KEYFRAME` or `PARTIAL`.
        content: the detections as `bag.records` packs them; of a failure its words in UTF-8.
    """

    kind: int
    content: bytes


class Journal:
    """A file that grows by one entry for each image, in their order.

    Its length is the number of entries of an earlier run of the same kind. They end before its
    last keyframe: the images from there on need that keyframe's features, which are gone. The last
    entries of a run that was killed may be incomplete; they are left out, too.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Open the file; one that another kind of run has left is emptied.

        Args:
            path: the file.
            identity: of the run: whatever its results depend on, as JSON.

        Raises:
            DatasetError: another process has it open.
            OSError: it cannot be opened.
        """
        self._file = open(path, "a+b")  # noqa: SIM115 - held until `close`
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise DatasetError(
                f"{path} is in use: another run writes the same bag; wait for it or end it."
            ) from None
        title = (json.dumps(identity, sort_keys=True) + "\n").encode()
        self._file.seek(0)
        self._places: list[int] = []
        if self._file.readline() == title:
            self._end: int | None = self._find_entries()
        else:
            self._file.truncate(0)
            self._file.write(title)
            self._file.flush()
            self._end = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Entry:
        self._file.seek(self._places[index])
        kind, length, _ = _HEAD.unpack(self._file.read(_HEAD.size))
        return Entry(kind, self._file.read(length))

    def append(self, entry: Entry) -> None:
        """Add an entry; it is safe when this returns, unless the machine itself fails.

        The first one replaces what an earlier run left from its last keyframe on.

        Raises:
            OSError: it cannot be written.
        """
        if self._end is not None:
            self._file.truncate(self._end)
            self._end = None
        content = entry.content
        head = _HEAD.pack(entry.kind, len(content), zlib.crc32(content))
        self._file.write(head + content)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _find_entries(self) -> int:
        """Fill `_places`; returns the place in the file where the entries end."""
        places: list[int] = []
        last_keyframe, end = 0, self._file.tell()
        size = os.fstat(self._file.fileno()).st_size
        while True:
            place = self._file.tell()
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
                last_keyframe, end = len(places), place
            places.append(place)
        self._places = places[:last_keyframe]
        return end
