"""Freed memory is reused; each test runs in a process of its own, as the setting is permanent."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from yolact_ros import malloc

# Pages that fault while memory of 8 MB is filled and freed 50 times, after a first time.
COUNT_FAULTS = """
import resource, sys
from yolact_ros.malloc import LARGEST, keep_freed_memory
if sys.argv[1] != "default":
    keep_freed_memory(largest=LARGEST if sys.argv[1] == "some" else None)
for number in range(51):
    block = bytearray(b"x") * 2**23
    del block
    if number == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, kept]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="requires glibc")
def test_kept_memory_does_not_fault_again():
    assert faults("default") > 1000, "otherwise the test shows nothing"
    assert faults("some") < 100
    assert faults("all") < 100


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_nothing_happens_without_glibc(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    malloc.keep_freed_memory()
