"""Concurrent processes build an engine only once, and a bad engine is never returned."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.cache import engine_folders, engine_lock, load_engine
from yolact_ros.runtime.backends.tensorrt.files import (
    EngineIdentity,
    engine_path,
    sidecar_path,
    write_engine,
)

REPOSITORY = Path(__file__).resolve().parents[4]
ORIN = EngineIdentity("ab" * 32, "tensorrt", "10.3.0", "Orin", "8.7", "fp16", 1)


def load(folder, *arguments, **more):
    return load_engine([folder], *arguments, **more)[0]


class Builder:
    """Counts its builds, each of which yields different bytes."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return b"engine %d" % self.count


@pytest.fixture
def build():
    return Builder()


def test_a_missing_engine_is_built_once(tmp_path, build):
    assert load(tmp_path, "detect", ORIN, build=build) == b"engine 1"
    assert load(tmp_path, "detect", ORIN, build=build) == b"engine 1"
    assert build.count == 1


def test_always_builds_again(tmp_path, build):
    load(tmp_path, "detect", ORIN, build=build)
    assert load(tmp_path, "detect", ORIN, build=build, policy="always") == b"engine 2"
    assert load(tmp_path, "detect", ORIN, build=build, policy="never") == b"engine 2"


def test_never_names_what_is_missing_and_how_to_build_it(tmp_path, build):
    with pytest.raises(BackendError, match="There is no engine .*yolact engine"):
        load(tmp_path, "detect", ORIN, build=build, policy="never")
    assert build.count == 0


def tamper(path):
    path.write_bytes(b"ENGINE 1")


def truncate(path):
    path.write_bytes(path.read_bytes()[:3])


def forget_sidecar(path):
    sidecar_path(path).unlink()


def put_foreign_one(path):
    """Store an engine of another GPU, with its sidecar, under the name of ours."""
    other = replace(ORIN, gpu="Xavier", compute_capability="7.2")
    write_engine(path, b"foreign", other, seconds=0)


@pytest.mark.parametrize("spoil", [tamper, truncate, forget_sidecar, put_foreign_one])
def test_a_bad_engine_is_replaced_or_refused(tmp_path, build, spoil):
    load(tmp_path, "detect", ORIN, build=build)
    spoil(engine_path(tmp_path, "detect", ORIN))
    with pytest.raises(BackendError, match="build_engine is never, so it is not built now"):
        load(tmp_path, "detect", ORIN, build=build, policy="never")
    assert load(tmp_path, "detect", ORIN, build=build) == b"engine 2"
    assert load(tmp_path, "detect", ORIN, build=build, policy="never") == b"engine 2"


def test_engines_of_another_version_stay_beside_the_new_one(tmp_path, build):
    newer = replace(ORIN, library_version="10.16.0")
    load(tmp_path, "detect", ORIN, build=build)
    assert load(tmp_path, "detect", newer, build=build) == b"engine 2"
    assert load(tmp_path, "detect", ORIN, build=build, policy="never") == b"engine 1"


def test_a_build_that_fails_leaves_nothing_and_frees_the_lock(tmp_path, build):
    def fail():
        raise BackendError("out of memory")

    with pytest.raises(BackendError, match="out of memory"):
        load(tmp_path, "detect", ORIN, build=fail)
    assert [p for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []
    assert load(tmp_path, "detect", ORIN, build=build) == b"engine 1"


# Another process, which requests the engine once the file `start` exists; its build takes a while.
RACER = """
import os, sys, time
from pathlib import Path
from yolact_ros.runtime.backends.tensorrt.cache import load_engine
from yolact_ros.runtime.backends.tensorrt.files import EngineIdentity

folder = Path(sys.argv[1])
def build():
    with open(folder / "builds", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.3)
    return b"engine of %d" % os.getpid()

identity = EngineIdentity("ab" * 32, "tensorrt", "10.3.0", "Orin", "8.7", "fp16", 1)
print("ready", flush=True)
sys.stdin.readline()
print(load_engine([folder], "detect", identity, build=build)[0].decode())
"""

# Another process: takes the lock and dies in the middle of it.
VICTIM = """
import os, sys
from pathlib import Path
from yolact_ros.runtime.backends.tensorrt.cache import engine_lock

with engine_lock(Path(sys.argv[1])):
    os._exit(9)
"""


def start(script, argument):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", script, str(argument)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_two_processes_that_race_build_once_and_get_the_same_engine(tmp_path):
    processes = [start(RACER, tmp_path) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    engines = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (builder,) = (tmp_path / "builds").read_text().split()
    assert engines == [f"engine of {builder}\n"] * 2


def test_the_lock_of_a_process_that_died_is_free(tmp_path, build):
    victim = start(VICTIM, engine_path(tmp_path, "detect", ORIN))
    victim.communicate(timeout=60)
    assert victim.returncode == 9
    assert load(tmp_path, "detect", ORIN, build=build, lock_seconds=0) == b"engine 1"


def test_a_lock_that_is_not_released_causes_an_error(tmp_path, build):
    with (
        engine_lock(engine_path(tmp_path, "detect", ORIN)),
        pytest.raises(BackendError, match="Another process has held"),
    ):
        load(tmp_path, "detect", ORIN, build=build, lock_seconds=0.2)
    assert build.count == 0


def test_engines_are_beside_the_graphs_or_in_the_cache(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle, cache = engine_folders(tiny_bundle)
    assert bundle == tiny_bundle.folder
    name = f"bundle-{tiny_bundle.description.identity}"
    assert cache == tmp_path / "cache" / "yolact_ros" / name


# Another user: loads an engine from the first of these folders, or builds it into the second.
READER = """
import os, sys
from pathlib import Path
from yolact_ros.errors import BackendError
from yolact_ros.runtime.backends.tensorrt.cache import load_engine
from yolact_ros.runtime.backends.tensorrt.files import EngineIdentity

identity = EngineIdentity("ab" * 32, "tensorrt", "10.3.0", "Orin", "8.7", "fp16", 1)
folders = [Path(word) for word in sys.argv[2:]]
b"{}".decode("utf-8-sig")  # loads the codec while the interpreter's own folder can be read
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    content, path = load_engine(
        folders, "detect", identity, build=lambda: b"new", policy=sys.argv[1]
    )
    print(content.decode(), path.parent)
except BackendError as error:
    print(error)
"""


def test_an_engine_in_a_folder_without_write_permission_is_found(tmp_path, build):
    with tempfile.TemporaryDirectory() as scratch:  # others may not enter pytest's own
        os.chmod(scratch, 0o755)
        bundle, cache = Path(scratch, "bundle"), Path(scratch, "cache")
        bundle.mkdir()
        cache.mkdir()
        cache.chmod(0o777)

        def other_user(policy):
            command = [sys.executable, "-c", READER, policy, str(bundle), str(cache / "new")]
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            result = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert result.returncode == 0, result.stderr
            return result.stdout.strip()

        bundle.chmod(0o555)
        assert f"yolact engine {bundle}" in other_user("never")
        assert other_user("if_missing") == f"new {cache / 'new'}"
        bundle.chmod(0o755)
        load(bundle, "detect", ORIN, build=build)
        bundle.chmod(0o555)
        assert other_user("never") == f"engine 1 {bundle}"
        (cache / "new").chmod(0o555)
        assert "No engine can be written" in other_user("always")
        bundle.chmod(0o755)


def test_another_user_can_take_the_lock_whatever_the_umask(tmp_path):
    path = engine_path(tmp_path, "detect", ORIN)
    before = os.umask(0o077)
    try:
        with engine_lock(path):
            pass
    finally:
        os.umask(before)
    (lock,) = tmp_path.glob(".*.lock")
    assert lock.stat().st_mode & 0o777 == 0o666
