"""The launch files; where ROS 2's launch system is installed, they are run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FILES = sorted((REPOSITORY / "launch").glob("*.launch.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_launch_file_is_python_with_an_entry_point(path):
    names = compile(path.read_text(), str(path), "exec").co_names
    assert "generate_launch_description" in names


def launch(*words: str, timeout: float) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("launch_ros", reason="ROS 2's launch system is not installed")
    script = "import sys; from ros2cli.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, "launch", "yolact_ros", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_is_described(path):
    shown = launch(path.name, "--show-args", timeout=60.0)
    assert shown.returncode == 0, shown.stderr
    assert "model" in shown.stdout and "no description" not in shown.stdout
