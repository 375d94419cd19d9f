"""Recordings of the Rerun viewer, read by its own program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def show(recording: Path, entity: str = "") -> str:
    """Everything that a recording holds so far, or what it holds of one entity, as text."""
    return _rerun("print", "-vvv", *(["--entity", entity] if entity else []), recording).stdout


def verify(recording: Path) -> None:
    """Fail unless the recording is sound."""
    result = _rerun("verify", recording)
    assert result.returncode == 0, result.stderr


def _rerun(*words: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "rerun"
    return subprocess.run([program, "rrd", *words], capture_output=True, text=True, timeout=120)
