"""Only the engine bytes that were written are ever loaded; damage is refused with a message."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from mutations import mutate_bytes, mutate_json

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.files import (
    EngineIdentity,
    engine_path,
    read_engine,
    sidecar_path,
    write_engine,
)

CONTENT = bytes(range(256)) * 4
ORIN = EngineIdentity("ab" * 32, "tensorrt", "10.3.0", "Orin", "8.7", "fp16", 1, 8, True)


@pytest.fixture
def engine(tmp_path):
    path = engine_path(tmp_path, "detect", ORIN)
    write_engine(path, CONTENT, ORIN, seconds=1.0)
    return path


def is_refused(engine):
    """Return whether the engine is refused with a message; otherwise check its bytes."""
    try:
        assert read_engine(engine, ORIN) == CONTENT
    except BackendError as error:
        assert len(str(error)) > 20
        return True
    return False


def test_random_sidecars(engine):
    random = np.random.default_rng(19)
    good = sidecar_path(engine).read_bytes()
    refused = 0
    for number in range(600):
        if number % 2:
            content = mutate_bytes(good, random)
        else:
            content = json.dumps(mutate_json(json.loads(good), random)).encode()
        sidecar_path(engine).write_bytes(content)
        refused += is_refused(engine)
    assert refused > 400


def test_random_engines(engine):
    random = np.random.default_rng(20)
    for _ in range(200):
        damaged = mutate_bytes(CONTENT, random)
        engine.write_bytes(damaged)
        assert is_refused(engine) == (damaged != CONTENT)


SIDECARS = {
    "deep": b"[" * 200_000,
    "list": b"[1]",
    "number": b"7",
    "identity": b'{"identity": [1], "format": "yolact_ros engine 1"}',
    "empty": b"",
    "bytes": b"\xff\x00",
}


@pytest.mark.parametrize("kind", [*SIDECARS, "fifo", "folder", "sparse"])
def test_other_files_in_the_folder_do_not_prevent_writing_an_engine(engine, kind):
    neighbour = engine_path(engine.parent, "detect", replace(ORIN, precision="fp32"))
    neighbour.write_bytes(b"x")
    where = sidecar_path(neighbour)
    if kind == "fifo":
        os.mkfifo(where)
    elif kind == "folder":
        where.mkdir()
    elif kind == "sparse":
        with where.open("wb") as file:
            file.truncate(30 << 30)
    else:
        where.write_bytes(SIDECARS[kind])
    write_engine(engine, CONTENT, ORIN, seconds=1.0)
    assert not is_refused(engine) and neighbour.exists()


@pytest.mark.parametrize("size", [0, len(CONTENT) - 1, 30 << 30])
def test_an_engine_of_another_size_is_refused_before_it_takes_memory(engine, size):
    os.truncate(engine, size)
    assert is_refused(engine)
