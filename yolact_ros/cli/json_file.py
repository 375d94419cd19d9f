"""Write JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yolact_ros.errors import DatasetError
from yolact_ros.files import replace_file


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically.

    Raises:
        DatasetError: the file cannot be written.
    """
    try:
        text = json.dumps(content, indent=1) + "\n"
        if path.exists() and not path.is_file():  # /dev/stdout
            path.write_text(text, encoding="utf-8")
            return
        replace_file(path, text.encode())
    except OSError as error:
        raise DatasetError(f"{path} cannot be written: {error}.") from error
