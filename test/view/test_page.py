"""The page answers HTTP requests like those of a browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from yolact_ros import Segmenter
from yolact_ros.cli.main import main
from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.errors import DatasetError
from yolact_ros.runtime.shipped import shipped_file
from yolact_ros.view.page import COLUMNS, Workbench

# Not imported here: the library leaves event loops open, and warns of itself.
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    video = cv2.VideoCapture(str(shipped_file("models/demo/tabletop.mp4")))
    _, image = video.read()
    video.release()
    path = tmp_path_factory.mktemp("page") / "frame.png"
    cv2.imwrite(str(path), image)
    return path


@pytest.fixture(scope="module")
def page():
    """Serve a page in a separate process, because Gradio leaves its event loops open."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "yolact_ros.cli.main", "serve", "--port", str(port)]
    process = subprocess.Popen(
        [*words, "--threads", "1"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            assert process.poll() is None, "the server ended"
            time.sleep(0.2)
        yield address
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()


def _answers(address):
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status == 200
    except OSError:
        return False


def _post(url, body, kind="application/json"):
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def _ask(page, name, picture, *values):
    """Send a picture to one function of the page; return the answer as a browser receives it."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = part + picture.read_bytes() + b"\r\n--x--\r\n"
    (path,) = _post(f"{page}/gradio_api/upload", body, "multipart/form-data; boundary=x")
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    call = f"{page}/gradio_api/call/{name}"
    event = _post(call, json.dumps({"data": [file, *values]}).encode())["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=300) as answer:
        lines = answer.read().decode().splitlines()
    assert "event: complete" in lines, lines
    return json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))


def _image(answer):
    with urllib.request.urlopen(answer["url"], timeout=60) as file:
        return cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)


def test_the_page_answers_with_overlay_and_table(picture, page):
    overlay, table = _ask(page, "segment", picture, "tabletop", 0.5, 0.5)
    (sheet,) = _ask(page, "prototypes", picture, "tabletop")
    image = cv2.imread(str(picture))
    with Segmenter.open("tabletop", backend=BackendConfig(threads=1)) as segmenter:
        found = segmenter.segment(image, postprocess=PostprocessConfig(score_threshold=0.5))
    assert table["headers"] == list(COLUMNS)
    assert [row[0] for row in table["data"]] == [i.class_name for i in found]
    assert [row[-1] for row in table["data"]] == [int(i.mask.sum()) for i in found]
    assert len(found) and _image(overlay).shape == image.shape
    assert _image(sheet).shape[0] > 100


def test_a_picture_that_cannot_be_read_is_an_error_of_the_package(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DatasetError):
        Workbench(BackendConfig()).segment(tmp_path / "a.png", "tabletop", 0.5, 0.5)


def test_an_empty_picture_yields_an_empty_table(tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((48, 64, 3), np.uint8))
    overlay, rows = Workbench(BackendConfig()).segment(
        tmp_path / "black.png", "tabletop", 0.99, 0.5
    )
    assert rows == [] and overlay.shape == (48, 64, 3)


@pytest.mark.parametrize("port", ["-1", "0", "65536", "x"])
def test_an_invalid_port_is_refused(capsys, port):
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "--port", port])
    assert "--port" in capsys.readouterr().err


def test_a_missing_model_is_named_before_the_page_opens(capsys):
    assert main(["serve", "no/such/model", "--port", "1"]) == 1
    assert "no/such/model" in capsys.readouterr().err
