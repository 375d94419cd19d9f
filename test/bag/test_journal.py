from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.bag.journal import FAILED, KEYFRAME, PARTIAL, Entry, Journal
from yolact_ros.errors import DatasetError

ENTRIES = [
    Entry(KEYFRAME, b"first"),
    Entry(FAILED, b""),
    Entry(PARTIAL, b"third"),
    Entry(KEYFRAME, b"fourth"),
    Entry(PARTIAL, b"fifth"),
]


def fill(path, entries=ENTRIES):
    with Journal(path, {"run": 1}) as journal:
        for entry in entries:
            journal.append(entry)


def read(path, run=1):
    with Journal(path, {"run": run}) as journal:
        return [journal[index] for index in range(len(journal))]


def test_entries_before_the_last_keyframe_are_read_and_more_can_follow(tmp_path):
    fill(tmp_path / "journal")
    assert read(tmp_path / "journal") == ENTRIES[:3]
    fill(tmp_path / "journal", [Entry(KEYFRAME, b"new"), Entry(KEYFRAME, b"")])
    assert read(tmp_path / "journal") == [*ENTRIES[:3], Entry(KEYFRAME, b"new")]


@pytest.mark.parametrize("entries", [[], ENTRIES[:1], ENTRIES[1:3]])
def test_nothing_is_read_without_two_keyframes(tmp_path, entries):
    fill(tmp_path / "journal", entries)
    assert read(tmp_path / "journal") == []


def test_the_journal_of_another_run_is_emptied(tmp_path):
    fill(tmp_path / "journal")
    assert read(tmp_path / "journal", run=2) == []
    assert read(tmp_path / "journal") == []


def test_the_good_beginning_of_a_truncated_or_damaged_journal_is_read(tmp_path):
    fill(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(0)
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        found = read(tmp_path / "cut")
        assert found == ENTRIES[: len(found)]
        damaged = bytearray(whole)
        damaged[length] ^= int(rng.integers(1, 256))
        (tmp_path / "damaged").write_bytes(damaged)
        found = read(tmp_path / "damaged")
        assert found == ENTRIES[: len(found)]


def test_two_processes_cannot_have_the_same_journal(tmp_path):
    with (
        Journal(tmp_path / "journal", {}),
        pytest.raises(DatasetError, match="in use: another run is writing the same bag"),
    ):
        Journal(tmp_path / "journal", {})
