"""Read recordings of the Rerun viewer with its own program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def show(recording: Path, entity: str = "") -> str:
    """Return as text everything that a recording contains so far, optionally of one entity."""
    return _rerun("print", "-vvv", *(["--entity", entity] if entity else []), recording).stdout


def verify(recording: Path) -> None:
    """Fail unless the recording is valid."""
    result = _rerun("verify", recording)
    assert result.returncode == 0, result.stderr


def _rerun(*words: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "rerun"
    return subprocess.run([program, "rrd", *words], capture_output=True, text=True, timeout=120)
