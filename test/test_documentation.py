"""The documentation is correct: its code runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

from yolact_ros.cli import main as cli  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their blocks run in test/ros/test_reading_masks.py, on the bytes of real messages.
OWN_TESTS = {"reading_masks.md"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list:
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        if page.name not in OWN_TESTS
        for number, (name, text) in enumerate(BLOCK.findall(page.read_text()))
        if name == language
    ]


def commands() -> list:
    found = []
    for block in blocks("bash"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line.split(" && ")[-1], comments=True)
            if words[:1] == ["yolact"]:
                found.append(pytest.param(words[1:], id=f"{block.id}-{' '.join(words[1:])[:60]}"))
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_python_of_the_pages_runs_as_it_stands(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = cv2.VideoCapture(str(ROOT / "models" / "demo" / "tabletop.mp4"))
    images = [video.read()[1] for _ in range(4)]
    assert cv2.imwrite("picture.jpg", images[0])
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter("video.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 20, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})


@pytest.mark.parametrize("words", commands())
def test_commands_of_the_pages_are_understood(words, monkeypatch, capsys):
    """Parse the command line with the parser that runs it, and stop before it runs."""
    import argparse

    class Understood(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def stop(parser, argv=None, namespace=None):
        parse(parser, argv, namespace)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    try:
        cli.main(words)
    except Understood:
        return
    except SystemExit as end:
        assert end.code == 0 and "--help" in words, capsys.readouterr().err
        return
    pytest.fail("the command was not parsed")


def test_every_command_has_its_line_on_the_page_of_commands():
    page = (ROOT / "docs" / "cli.md").read_text()
    for verb, summary in cli.VERBS.items():
        assert f"| `yolact {verb}` | {summary} |" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_to_files(page):
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_lines_of_prose_have_at_most_100_characters():
    for page in PAGES:
        prose = BLOCK.sub("", page.read_text())
        for line in prose.splitlines():
            shown = re.sub(r"`[^`]*`|\]\([^)]*\)|^\[.*", "", line)
            assert len(shown) <= 100 or line.lstrip().startswith("|"), (page.name, line)


def test_the_readme_is_short_and_its_picture_small():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 130
    (picture,) = re.findall(r"\((docs/demo\.\w+)\)", readme)
    assert (ROOT / picture).stat().st_size < 3e6


def test_messages_that_troubleshooting_quotes_are_those_of_the_node():
    source = "\n".join(
        path.read_text()
        for folder in ("ros", "runtime")
        for path in (ROOT / "yolact_ros" / folder).rglob("*.py")
    )
    source = re.sub(r'"\s+f?"', "", source)  # a sentence over several lines
    source = " ".join(re.sub(r"\{[^{}]*(\{[^{}]*\}[^{}]*)*\}", "…", source).split())
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r'\*\*"([^"]+)"', " ".join(page.split()))
    assert len(quoted) > 15
    for message in quoted:
        for part in message.split("…"):
            assert part.strip(" ,;:.") in source, message


def logged_by_the_node():
    """Yield file and text of each literal warning, error and finding; "…" replaces values."""
    others = {"soak", "benchmark", "demo", "rerun_bridge.py"}
    for path in (ROOT / "yolact_ros").rglob("*.py"):
        parts = path.relative_to(ROOT / "yolact_ros").parts
        if parts[0] not in ("ros", "runtime") or others & {*parts}:
            continue  # not in the node
        for node in ast.walk(ast.parse(path.read_text())):
            message = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in ("warning", "error", "fatal") and node.args:
                    message = node.args[0]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
                if getattr(node.elts[0], "id", "") in ("WARN", "ERROR", "STALE", "level"):
                    message = node.elts[1]
            values = message.values if isinstance(message, ast.JoinedStr) else [message]
            texts = [each.value for each in values if isinstance(each, ast.Constant)]
            text = " ".join(re.sub(r"%[sr]", "…", "…".join(texts)).split())
            if re.search(r"\w", text):
                yield path.name, text


def test_troubleshooting_has_an_entry_for_every_warning_and_error_of_the_node():
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text().split())
    entries = [
        ".*".join(re.escape(part.strip(" ,;:.")) for part in entry.split("…"))
        for entry in re.findall(r'\*\*"([^"]+)"', page)
    ]
    messages = list(logged_by_the_node())
    assert len(messages) > 20
    assert not [each for each in messages if not any(re.search(e, each[1]) for e in entries)]


def test_every_file_that_states_the_version_states_the_same():
    from yolact_ros import __version__

    for name, pattern in (
        ("setup.cfg", r"^version = (.+)$"),
        ("CITATION.cff", r"^version: (.+)$"),
        ("package.xml", r"<version>(.+)</version>"),
    ):
        stated = re.search(pattern, (ROOT / name).read_text(), re.MULTILINE)
        assert stated and stated[1] == __version__, name
