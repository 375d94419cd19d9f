"""JSON files that a verb writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yolact_ros.errors import DatasetError


def check_writable(path: Path | None) -> None:
    """Find out before the work, not after it, that a result cannot be written.

    Raises:
        DatasetError: `path` cannot be written; None is fine.
    """
    if path is None:
        return
    existed = path.exists()
    try:
        path.open("a").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error}.") from error


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON.

    Raises:
        DatasetError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error}.") from error
