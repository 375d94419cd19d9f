"""Every random command line ends within seconds with status 0, 1 or 2 and a message."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("torch")
pytest.importorskip("pycocotools")
onnx = pytest.importorskip("onnx")

from yolact_ros.cli.main import main
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.bundle_writer import write_bundle

REPOSITORY = Path(__file__).resolve().parents[2]

NUMBERS = [
    "0",
    "1",
    "-1",
    "3",
    "nan",
    "inf",
    "-inf",
    "1e300",
    "1e-300",
    "9" * 30,
    "²",
    "0.5",
    "x",
    "",
]
SIZES = ["40x40", "64x48", "40000x40000", "0x0", "64", "9999999999x9", "x", "-1x5"]


@pytest.fixture
def place(tmp_path, tiny_bundle, monkeypatch):
    """Create a folder with one input of every kind, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("im")
    for i in range(2):
        cv2.imwrite(f"im/{i}.png", np.full((40, 60, 3), 90 * i, np.uint8))
    Path(os.fsdecode(b"im/\xff.png")).write_bytes(Path("im/0.png").read_bytes())
    Path("im/broken.jpg").write_bytes(b"no picture")
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    Path("a.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "0.png", "height": 40, "width": 60}],
                "annotations": [
                    {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [square]}
                ],
                "categories": [{"id": 1, "name": "cup"}],
            }
        )
    )
    os.mkdir("run")
    Path("run/losses.csv").write_text("step,learning_rate,total\n1,nan,inf\n2,0.1,nan\n")
    Path("text").write_text("text")
    Path("binary").write_bytes(bytes(range(256)))
    os.mkdir("empty")
    os.mkfifo("fifo")
    return tmp_path


PLACES = [
    "im", "im/0.png", os.fsdecode(b"im/\xff.png"), "im/broken.jpg", "a.json", "run", "text",
    "binary", "empty", "fifo", "bundle", "none", "n" * 300, "text/below", "/proc/x/y", "/dev/null",
    ".", "bundle/model.json", "new/out.png", "o.json", "im/*", "[", "9" * 10, "x://[::1",
]  # fmt: skip

# Verb -> positional arguments and flags: `P` takes a path, `N` a number, `S` a size.
VERBS = {
    "predict": (
        "P",
        ["--json P", "--overlay P", "--score-threshold N", "--threads N", "--top-k N"],
    ),
    "evaluate": (
        "P",
        ["--annotations P", "--images P", "--json P", "--limit N", "--report-score N"],
    ),
    "benchmark": ("P", ["--images P", "--json P", "--frames 1", "--threads N"]),
    "bag": ("P P", ["--topic P", "--result-topic P"]),
    "check-dataset": ("P", ["--images P", "--json P", "-o P", "--against P P"]),
    "import-dataset": ("labelme P", ["-o P", "--validation N", "--copy"]),
    "convert": ("P", ["-o P"]),
    "export": ("P", ["-o P"]),
    "quantize": ("P", ["-o P", "--images P", "--count N", "--float-above N"]),
    "engine": ("P", []),
    "prototypes": ("P", ["-o P", "--instances N", "--score-threshold N", "--model bundle"]),
    "train": ("P", ["-o P", "--set steps=N", "--resume P", "--set P"]),
    "simulate": ("clip", ["-o P", "--size S", "--frames N", "--fps N", "--seed N"]),
    "evaluate-tracks": ("bundle", ["--annotations P --images P", "--json P", "--limit N"]),
    "view": ("P -o P --model bundle", ["--topic P", "--top-k N"]),
    # No cluster is at that address, and no model of that name: neither starts to work.
    "batch": ("P -o P --model bundle --address x", ["--workers N", "--gpus N", "--format P"]),
    "serve": ("P none", ["--port N"]),
    "fetch": ("P", ["-o P"]),
}


def draw_line(random: np.random.Generator) -> list[str]:
    """Draw a random command line."""

    def draw(values):
        return values[int(random.integers(len(values)))]

    def fill(form):
        values = {"P": PLACES, "N": NUMBERS, "S": SIZES}
        name, equals, value = form.partition("=")
        if equals and value in values:
            return f"{name}={draw(values[value])}"
        return draw(values[form]) if form in values else form

    verb = draw(list(VERBS))
    positional, flags = VERBS[verb]
    words = [verb, *(fill(form) for form in positional.split())]
    if verb in ("predict", "bag"):
        words += ["--model", "bundle"]
    for flag in flags:
        if random.random() < 0.6:
            words += [fill(form) for form in flag.split()]
    return words


def status_of(words, seconds=120):
    """Run a verb in this process; fail the test if it does not end."""

    def late(*_):
        raise AssertionError(f"{words} does not end")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        return main(words)
    except SystemExit as error:
        return error.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(6))
def test_random_lines(place, capsys, seed):
    random = np.random.default_rng(seed)
    refused = 0
    for _ in range(40):
        words = draw_line(random)
        shutil.rmtree("new", ignore_errors=True)
        try:
            status = status_of(words)
        except Exception as error:
            raise AssertionError(f"{words}: {type(error).__name__}: {error}") from error
        text = capsys.readouterr().err
        assert status in (0, 1, 2), words
        assert status == 0 or len(text) > 20, words
        refused += status != 0
    assert refused > 20


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "im/0.png", "--model", "bundle", "--json", "im/0.png"],
        ["predict", "im", "--model", "bundle", "--json", "im/1.png"],
        ["check-dataset", "a.json", "--images", "im", "--json", "a.json"],
        ["evaluate", "bundle", "--annotations", "a.json", "--images", "im", "--json", "a.json"],
        ["evaluate", "bundle", "--annotations", "a.json", "--images", "im", "--json", "link.json"],
        ["prototypes", "im/0.png", "--model", "bundle", "-o", "im/0.png"],
        ["quantize", "bundle", "--images", "im", "-o", "bundle"],
        ["benchmark", "bundle", "--images", "im", "--json", "bundle/model.json"],
        ["predict", "im/*.png", "--model", "bundle", "--json", "im/1.png"],
        ["predict", "im/1.txt", "--model", "bundle", "--save-txt", "im"],
        ["predict", "im/1.txt", "--model", "bundle", "--save-txt", "linked"],
        ["predict", "im/1.png", "--model", "bundle", "--overlay", "linked"],
        ["view", "im", "--model", "bundle", "-o", "im/1.png"],
        ["batch", "im/1.png", "--model", "bundle", "-o", "im/1.png"],
        ["batch", "im", "--model", "bundle", "-o", "im"],
    ],
)
def test_no_command_overwrites_its_input(place, capsys, words):
    os.link("a.json", "link.json")
    os.mkdir("linked")
    os.link("im/1.png", "linked/1.png")
    os.link("im/1.png", "im/1.txt")
    os.link("im/1.txt", "linked/1.txt")
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert main(words) == 1
    assert "overwritten" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "words",
    [
        ["export", "tabletop", "-o"],
        ["quantize", "bundle", "--images", "im", "-o"],
        ["simulate", "images", "-o"],
        ["batch", "im", "--model", "bundle", "-o"],
        ["view", "im", "--model", "bundle", "-o"],
        ["convert", "text", "-o"],
        ["predict", "im", "--model", "bundle", "--save-txt"],
        ["predict", "im", "--model", "bundle", "--overlay"],
        ["evaluate", "bundle", "--annotations", "a.json", "--images", "im", "--report"],
    ],
)
@pytest.mark.parametrize("output", ["/dev/null", "fifo", "other"])
def test_an_output_of_another_kind_is_refused_before_the_work(place, capsys, words, output):
    is_file = words[0] in ("view", "convert")
    os.mkdir("other") if is_file else Path("other").touch()
    assert main([*words, output]) == 1
    kind = "a regular file" if is_file else "a folder"
    assert f"{output} exists and is not {kind}" in capsys.readouterr().err
    assert Path("/dev/null").is_char_device()


def test_an_output_without_a_reader_is_refused_at_once(place, capsys):
    assert status_of(["check-dataset", "a.json", "--images", "im", "--json", "fifo"]) == 1
    assert "fifo" in capsys.readouterr().err


def endless_bundle(folder, tiny):
    """Write a bundle whose graph counts to 2^62 before it returns its detections."""
    model = onnx.load_from_string((folder / "bundle" / "detect.onnx").read_bytes())
    helper, types = onnx.helper, onnx.TensorProto

    def info(name, kind, shape=()):
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Add", ["sum", "sum"], ["next"]),
        ],
        "body",
        [info("i", types.INT64), info("going", types.BOOL), info("sum", types.FLOAT, None)],
        [info("go_on", types.BOOL), info("next", types.FLOAT, None)],
    )
    # On what comes from the image: what is constant is computed when the graph is loaded.
    (place,) = (i for i, node in enumerate(model.graph.node) if node.op_type == "Sub")
    model.graph.node[place].input[0] = "counted"
    loop = helper.make_node("Loop", ["rounds", "yes", "float_blue"], ["counted"], body=body)
    model.graph.node.insert(place, loop)
    for name, value in (("rounds", np.array(2**62)), ("yes", np.array(True))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    write_bundle(
        folder / "endless",
        ModelDescription(tiny.TINY, "dense", 10),
        graphs={"detect": model.SerializeToString()},
        source={},
        versions={},
    )


@pytest.mark.parametrize(
    "model, done, number, status",
    [
        ("endless", 0, signal.SIGINT, 130),
        ("endless", 0, signal.SIGTERM, 143),
        ("tabletop", 1, signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_predict_and_keeps_what_was_done(place, tiny, model, done, number, status):
    endless_bundle(place, tiny)
    for i in range(2, 3000):
        os.link("im/0.png", f"im/{i}.png")
    process = subprocess.Popen(
        [sys.executable, "-m", "yolact_ros.cli.main", "predict", "im", "--model", model,
         "--json", "o.json"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        # A shell that starts the tests in the background has made them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        line = ""
        while not re.search(r" [1-9][0-9]*/[0-9]+" if done else "predict:", line):  # the bar
            letter = process.stderr.read(1)
            assert letter, line
            line += letter
        time.sleep(0 if done else 1)
        started = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == status
        assert time.monotonic() - started < 20  # a graph that is not stopped never ends
    finally:
        process.kill()
        process.stderr.close()
    entries = json.loads(Path("o.json").read_text())
    assert (len(entries) > 0) == bool(done) and len(entries) < 3000
