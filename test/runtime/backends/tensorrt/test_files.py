"""An engine is loaded only if its sidecar vouches for every byte and for this GPU."""

from __future__ import annotations

import json
import stat
from dataclasses import replace

import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.driver import Gpu, find_gpu
from yolact_ros.runtime.backends.tensorrt.files import (
    OLDER_FORMATS,
    EngineIdentity,
    engine_identity,
    engine_path,
    read_engine,
    sidecar_path,
    write_engine,
)

CONTENT = bytes(range(256)) * 40
ORIN = EngineIdentity("ab" * 32, "tensorrt", "10.3.0", "Orin", "8.7", "fp16", 1, 8, True)


@pytest.fixture
def engine(tmp_path):
    path = engine_path(tmp_path, "detect", ORIN)
    write_engine(path, CONTENT, ORIN, seconds=12.34)
    return path


def edit(engine, **changes):
    path = sidecar_path(engine)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_written_content_is_read_back(engine):
    assert read_engine(engine, ORIN) == CONTENT
    assert {path.name for path in engine.parent.iterdir()} == {
        engine.name,
        f"{engine.name}.json",
    }
    assert stat.S_IMODE(engine.stat().st_mode) == 0o644


def test_the_name_says_what_an_engine_is_for(engine):
    assert engine.name.startswith("detect.tensorrt-10.3.0-sm87x8-fp16-b1-")
    assert engine.name.endswith(".engine")


def test_the_sidecar_describes_what_an_engine_is_for(engine):
    sidecar = json.loads(sidecar_path(engine).read_text())
    assert sidecar["identity"]["gpu"] == "Orin"
    assert sidecar["build_seconds"] == 12.3


@pytest.mark.parametrize(
    "change",
    [
        {"graph_sha256": "cd" * 32},
        {"library": "tensorrt_rtx"},
        {"library_version": "10.16.0"},
        {"gpu": "Orin Nano"},
        {"compute_capability": "8.9"},
        {"precision": "fp32"},
        {"batch": 4},
        {"multiprocessors": 4},
        {"integrated": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_engine_for_anything_else_has_another_name_and_is_refused(engine, change):
    other = replace(ORIN, **change)
    assert engine_path(engine.parent, "detect", other) != engine
    (name, value) = next(iter(change.items()))
    with pytest.raises(BackendError, match=f"built for something else: {name} .*{value!r}"):
        read_engine(engine, other)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda content: content[:-1], "incomplete: it has 10239 bytes.* 10240"),
        (lambda content: b"", "incomplete"),
        (lambda content: content[:9] + b"!" + content[10:], "altered"),
        (lambda content: content + b"!", "incomplete"),
    ],
    ids=["truncated", "empty", "one byte", "longer"],
)
def test_a_damaged_engine_is_refused(engine, damage, message):
    engine.write_bytes(damage(CONTENT))
    with pytest.raises(BackendError, match=message):
        read_engine(engine, ORIN)


def test_an_engine_without_sidecar_is_refused(engine):
    sidecar_path(engine).unlink()
    with pytest.raises(BackendError, match="has no sidecar"):
        read_engine(engine, ORIN)


def test_a_missing_engine_is_refused(engine):
    engine.unlink()
    with pytest.raises(BackendError, match="There is no engine"):
        read_engine(engine, ORIN)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"format": "other"}'])
def test_a_sidecar_that_is_not_ours_is_refused(engine, content):
    sidecar_path(engine).write_bytes(content)
    with pytest.raises(BackendError, match=r"engine\.json"):
        read_engine(engine, ORIN)


@pytest.mark.parametrize("entry", ["identity", "bytes", "sha256"])
def test_a_sidecar_that_lacks_an_entry_is_refused(engine, entry):
    path = sidecar_path(engine)
    content = json.loads(path.read_text())
    del content[entry]
    path.write_text(json.dumps(content))
    with pytest.raises(BackendError, match="lacks an entry"):
        read_engine(engine, ORIN)


@pytest.mark.parametrize("older", OLDER_FORMATS)
def test_an_engine_of_an_older_format_is_refused(engine, older):
    """Engines of format 1 may sample the nearest pixel."""
    edit(engine, format=older)
    with pytest.raises(
        BackendError, match=f"has format '{older}'; expected 'yolact_ros engine 3'"
    ):
        read_engine(engine, ORIN)


def test_an_engine_exchanged_with_another_of_the_same_length_is_refused(engine):
    edit(engine, sha256="0" * 64)
    with pytest.raises(BackendError, match="altered"):
        read_engine(engine, ORIN)


def test_a_folder_that_cannot_hold_an_engine_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match="cannot be written"):
        write_engine(tmp_path / "file" / "x.engine", CONTENT, ORIN, seconds=0)


def test_engines_of_rtx_serve_every_gpu_of_their_kind(tiny_bundle):
    gpus = Gpu("NVIDIA GeForce RTX 4090", "8.9"), Gpu("NVIDIA L4", "8.9")
    for library, same in (("tensorrt_rtx", True), ("tensorrt", False)):
        first, second = (
            engine_identity(tiny_bundle, "detect", library=library, library_version="1", gpu=gpu)
            for gpu in gpus
        )
        assert (first == second) == same
        modes = Gpu("Orin", "8.7", 8, True), Gpu("Orin", "8.7", 4, True)  # two power modes
        first, second = (
            engine_identity(tiny_bundle, "detect", library=library, library_version="1", gpu=gpu)
            for gpu in modes
        )
        assert (first == second) == same
    digest = tiny_bundle.graphs["detect"].sha256
    assert first == EngineIdentity(digest, "tensorrt", "1", "Orin", "8.7", "fp32", 1, 8, True)


def test_a_machine_without_a_gpu_gets_an_error(monkeypatch):
    monkeypatch.setattr(
        "yolact_ros.runtime.backends.tensorrt.driver.DRIVER", "libno-such-driver.so.1"
    )
    with pytest.raises(BackendError, match="No GPU"):
        find_gpu()


def test_the_message_names_power_modes_where_multiprocessors_differ(engine):
    with pytest.raises(BackendError, match="multiprocessors 8 instead of 4 .*in the mode that is"):
        read_engine(engine, replace(ORIN, multiprocessors=4))


def test_engines_of_an_older_graph_or_format_are_removed_and_all_others_stay(engine):
    version = replace(ORIN, library_version="10.16.0")
    other = engine_path(engine.parent, "detect", version)
    write_engine(other, CONTENT, version, seconds=0)
    keyframe = engine_path(engine.parent, "keyframe", replace(ORIN, graph_sha256="ef" * 32))
    write_engine(keyframe, CONTENT, replace(ORIN, graph_sha256="ef" * 32), seconds=0)
    old = engine.with_name("detect.old.engine")
    old.write_bytes(CONTENT)
    old.with_name(f"{old.name}.json").write_text(
        json.dumps({"format": "yolact_ros engine 2", "identity": {"graph_sha256": "ab" * 32}})
    )
    write_engine(other, CONTENT, version, seconds=0)
    assert set(engine.parent.glob("*.engine")) == {engine, other, keyframe}
    new = replace(ORIN, graph_sha256="cd" * 32)
    write_engine(engine_path(engine.parent, "detect", new), CONTENT, new, seconds=0)
    assert set(engine.parent.glob("*.engine")) == {
        engine_path(engine.parent, "detect", new),
        keyframe,
    }
