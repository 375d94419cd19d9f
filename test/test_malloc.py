"""Freed memory is reused; each test runs in a process of its own, as the setting is permanent."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from yolact_ros import malloc

# Pages that fault while blocks of memory are filled and freed 50 times, after a first time.
COUNT_FAULTS = """
import resource, sys
from yolact_ros.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for number in range(51):
    block = bytearray(b"x") * int(sys.argv[2])
    del block
    if number == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: str, size: int) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, kept, str(size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="requires glibc")
@pytest.mark.parametrize("size", [2**23, 2**26])
def test_kept_memory_does_not_fault_again(size):
    assert faults("default", size) > 1000, "otherwise the test shows nothing"
    assert faults("kept", size) < 100


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_nothing_happens_without_glibc(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    malloc.keep_freed_memory()
