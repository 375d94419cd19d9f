"""The command reports unknown verbs and missing libraries, and the package installs completely."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from yolact_ros.cli.main import VERBS, main, make_parser
from yolact_ros.cli.settings import example_of

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb, capsys):
    if verb == "node":
        pytest.importorskip("rclpy")
    importlib.import_module(f"yolact_ros.cli.{verb.replace('-', '_')}")
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert verb.replace("-", "_") in capsys.readouterr().out.replace("-", "_")


def test_help_of_the_node_ends_quietly_when_its_reader_has_left():
    pytest.importorskip("rclpy")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "yolact_ros.cli.main", "node", "--help"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 0 and "BrokenPipe" not in ended.stderr, ended.stderr


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "node"])
def test_every_option_has_help_which_states_its_default_in_one_way(verb, capsys):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"yolact_ros.cli.{verb.replace('-', '_')}").add_arguments(parser)
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for action in parser._actions:
        assert action.help and not re.search(r"\([0-9.]+\)|%\(default", action.help), action.dest
        if isinstance(action.default, (int, float)) and action.default is not False:
            assert "default: " in action.help or f"default: {action.default})" in shown


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "node"])  # ROS has its words
def test_the_example_of_every_verb_is_understood(verb, capsys):
    module = importlib.import_module(f"yolact_ros.cli.{verb.replace('-', '_')}")
    example = example_of(module.add_arguments)
    words = [verb, *shlex.split(example)]
    assert len(words) > 1
    assert make_parser(words).parse_args(words).verb == verb
    with pytest.raises(SystemExit):
        make_parser([verb]).parse_args([verb, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: yolact {verb} {example}" in shown


@pytest.mark.parametrize(
    ("words", "likely"),
    [
        ("predct a.png", "predict"),
        ("val tools", "evaluate"),
        ("predict a.png --conf 0.5", "--score-threshold"),
        ("predict a.png --max_det=3", "--max-detections"),
        ("predict a.png --overlys out", "--overlay"),
        ("train --epochs 3", "--set epochs=N"),
    ],
)
def test_terms_of_other_programs_and_misspelt_ones_are_recognised(words, likely, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert f"did you mean {likely}?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["fly"]])
def test_an_unknown_verb_ends_with_status_two(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "VERB" in capsys.readouterr().err


def without_torch(*words: str) -> subprocess.CompletedProcess[str]:
    blocked = "import sys; sys.modules['torch'] = sys.modules['pybullet'] = None\n"
    script = blocked + "from yolact_ros.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "library"),
    [
        ("convert a.pth -o b.pth", "torch"),
        ("export a.pth -o b", "torch"),
        ("train config/train_tabletop.yaml -o {out}", "torch"),
        ("simulate images --frames 1 -o {out}", "pybullet"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(words, library, tmp_path):
    done = without_torch(*words.format(out=tmp_path / "out").split())
    assert done.returncode == 1
    assert library in done.stderr
    assert "pip install 'yolact_ros[" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_robot_without_torch_gets_the_command_for_a_pc(tmp_path):
    (tmp_path / "official.pth").write_bytes(b"\x80\x02weights")
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html>")
    (tmp_path / "a.png").touch()
    for name, sentence in (
        ("official.pth", "On a PC with 'yolact_ros[export]': yolact export official.pth -o offic"),
        ("page.pth", "page.pth is not a checkpoint: it is a web page"),
    ):
        done = without_torch("predict", str(tmp_path / "a.png"), "--model", str(tmp_path / name))
        assert done.returncode == 1
        assert sentence in done.stderr and "Traceback" not in done.stderr


def test_every_folder_of_sources_is_a_package_that_gets_installed():
    folders = {path.parent for path in (REPOSITORY / "yolact_ros").rglob("*.py")}
    assert len(folders) > 8
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]
