"""What several tests need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data: parity cases, state dicts, real photographs."""
    folder = Path(os.environ.get("YOLACT_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "parity" / "seeded_weights.py").is_file():
        pytest.skip(f"no reference data in {folder}; set YOLACT_SHARED to the folder that has it")
    return folder
