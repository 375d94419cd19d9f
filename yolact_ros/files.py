"""Read untrusted files with a size limit and clear errors; write files atomically."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from yolact_ros.errors import DatasetError, YolactError

MAX_BYTES = 4 << 30
# Age beyond which an unlocked scratch folder counts as abandoned.
ABANDONED_S = 5.0
# Passes `yolact --max-megapixels` to every process that reads images.
LIMIT_VARIABLE = "YOLACT_MAX_MEGAPIXELS"


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


WEB_PAGE = "a web page, e.g. a warning or login instead of a download"


def is_web_page(path: str | Path) -> bool:
    """Return whether a file starts like HTML.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(512).lstrip().startswith(b"<")


def read_file(
    path: str | Path, *, limit: int = MAX_BYTES, error: type[YolactError] = DatasetError
) -> bytes:
    """Read a whole regular file.

    FIFOs, devices and folders are rejected without blocking, and a file above `limit` bytes (a
    sparse one takes no disk space) before memory is allocated.

    Args:
        path: the file; its name may be any bytes that the file system accepts.
        limit: largest size in bytes.
        error: raised for a file that cannot be read.

    Raises:
        YolactError: an `error` that names the file and the reason.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO blocks until somebody writes to it.
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise error(f"{path} is not a regular file; expected one that can be read twice.")
            if state.st_size > limit:
                raise error(
                    f"{path} has {state.st_size} bytes; expected at most {limit}. Its name may be "
                    "wrong, or it needs to be split."
                )
            return file.read(limit)
    except FileNotFoundError as fault:
        raise error(f"{path} cannot be read: it does not exist.") from fault
    except OSError as fault:
        raise error(f"{path} cannot be read: {fault.strerror or fault}.") from fault
    except ValueError as fault:  # a NUL in the name
        raise error(f"{str(path)!r} cannot be read: {fault}.") from fault
    except MemoryError as fault:
        raise error(f"{path} does not fit into memory.") from fault


def user_cache() -> Path | None:
    """Return this package's folder in the user's cache; None without a home directory."""
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache:
        try:
            cache = str(Path.home() / ".cache")
        except RuntimeError:
            return None
    return Path(cache) / "yolact_ros"


def parse_json(
    content: bytes, *, where: str | Path, error: type[YolactError] = DatasetError
) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    NaN and Infinity, which Python would accept, are rejected: they are not JSON.

    Args:
        content: content of the file.
        where: name of the file, for the message.
        error: raised if the content is not valid JSON.

    Raises:
        YolactError: an `error` that describes the problem.
    """
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except ValueError as fault:
        raise error(f"{where} is not JSON: {fault}.") from fault
    except RecursionError as fault:
        raise error(f"{where} is nested too deeply to be read.") from fault
    except MemoryError as fault:
        raise error(f"{where} does not fit into memory.") from fault


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def replace_file(path: Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Write a file atomically: it gets its name only once it is completely on disk.

    Args:
        path: path of the file.
        content: its bytes, or a function that writes them to an open file.

    Raises:
        OSError: it cannot be written; the old file is then still there.
    """
    with scratch_beside(path) as folder:
        with open(folder / "new", "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / "new", path)


def write_checked(path: Path, content: bytes) -> None:
    """Write a file atomically, with a checksum for `read_checked`."""
    replace_file(path, hashlib.sha256(content).digest() + content)


def read_checked(path: Path) -> bytes:
    """Read what `write_checked` wrote; empty if it is absent, incomplete or altered."""
    try:
        stored = path.read_bytes()
    except OSError:
        return b""
    digest, content = stored[:32], stored[32:]
    return content if hashlib.sha256(content).digest() == digest else b""


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file and create its folder if necessary.

    Raises:
        DatasetError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise DatasetError(f"{shown(path)} cannot be written: {error}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, in one step.

    Raises:
        DatasetError: the file cannot be written.
    """
    text = json.dumps(content, indent=1) + "\n"
    if path.exists() and not path.is_file():  # /dev/stdout
        write_file(path, text)
        return
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise DatasetError(f"{shown(path)} cannot be written: {error}.") from error


@contextlib.contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Create a hidden folder beside `path`, on the same disk, for what will later replace it.

    The folder is removed at the end of the block. A killed process leaves its folder behind; the
    next one that writes the same path removes it, since the lock ended with the process.

    Raises:
        OSError: the folder cannot be created.
    """
    prefix = f".{path.name}.new-"
    for left in path.parent.iterdir():
        if left.name.startswith(prefix):
            _remove_if_abandoned(left)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
        lock = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a network drive may not support locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(lock)


def _remove_if_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process removes it, locks it, or owns it
        if time.time() - folder.stat().st_mtime < ABANDONED_S:
            return
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def shown(path: object) -> str:
    """Return a path as text that every terminal and log can print."""
    return str(path).encode("utf-8", "backslashreplace").decode()
