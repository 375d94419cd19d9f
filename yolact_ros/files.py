"""Read files of unknown origin: regular ones only, bounded, and every fault one sentence."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

from yolact_ros.errors import DatasetError, YolactError

MAX_BYTES = 4 << 30
# How `yolact --max-megapixels` reaches every process that reads images.
LIMIT_VARIABLE = "YOLACT_MAX_MEGAPIXELS"


def read_file(
    path: str | Path, *, limit: int = MAX_BYTES, error: type[YolactError] = DatasetError
) -> bytes:
    """Read a regular file as a whole.

    A FIFO, a device and a folder are refused without waiting for them, and a file above `limit`
    bytes (a sparse one takes no space on the disk) before memory is taken.

    Args:
        path: the file; its name may be any bytes that the file system takes.
        limit: largest size in bytes.
        error: raised for a file that cannot be read.

    Raises:
        YolactError: an `error` whose message names the file and the reason.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits for somebody who writes to it.
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise error(f"{path} is not a regular file; expected one that can be read twice.")
            if state.st_size > limit:
                raise error(
                    f"{path} has {state.st_size} bytes; expected at most {limit}. It is not what "
                    "its name says, or needs to be split."
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
    """Return this package's folder in the user's cache; None for a user without a home."""
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

    NaN and Infinity, which Python would accept, are refused: they are not JSON.

    Args:
        content: the bytes of a file.
        where: its name, for the message.
        error: raised for what is not JSON.

    Raises:
        YolactError: an `error` that says what is wrong.
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
    raise ValueError(f"{name} is not a number of JSON")
