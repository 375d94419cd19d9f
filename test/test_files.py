"""Files get their names atomically, and killed processes leave nothing that does harm."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from yolact_ros.files import replace_file, scratch_beside

# Says that the folder is made, and stays in it.
HOLDER = """
import sys, time
from pathlib import Path
from yolact_ros.files import scratch_beside
with scratch_beside(Path(sys.argv[1])):
    print("made", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that writes `tmp_path / "a"`; return it and its folder, made to look old."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "a")], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"made\n"
        (folder,) = tmp_path.iterdir()
        (folder / "part").write_bytes(b"x")
        age(folder)
        yield process, folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def age(folder):
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))


def test_files_of_a_killed_process_are_removed_by_the_next_writer(holder, tmp_path):
    process, folder = holder
    process.kill()
    process.wait()
    replace_file(tmp_path / "b", b"of another name")
    assert folder.is_dir()
    replace_file(tmp_path / "a", b"content")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_files_that_another_process_writes_stay(holder, tmp_path):
    _, folder = holder
    replace_file(tmp_path / "a", b"content")
    assert (folder / "part").read_bytes() == b"x"


def test_a_new_folder_stays(tmp_path):
    fresh = tmp_path / ".a.new-12345678"
    fresh.mkdir()
    replace_file(tmp_path / "a", b"content")
    assert fresh.is_dir()


def test_a_link_with_such_a_name_is_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"x")
    age(tmp_path / "kept")
    (tmp_path / ".a.new-12345678").symlink_to(tmp_path / "kept")
    replace_file(tmp_path / "a", b"content")
    assert (tmp_path / "kept" / "file").exists()


def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_other(tmp_path):
    def fail(file):
        file.write(b"half")
        raise RuntimeError("full")

    replace_file(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError, match="full"):
        replace_file(tmp_path / "a", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    replace_file(tmp_path / "a", b"")
    assert (tmp_path / "a").read_bytes() == b""


def test_the_folder_is_removed_with_its_contents(tmp_path):
    with scratch_beside(tmp_path / "a") as folder:
        (folder / "new").mkdir()
    assert list(tmp_path.iterdir()) == []
