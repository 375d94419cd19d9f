"""`yolact fetch` and its downloads work against a server on this machine."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("pooch")

from yolact_ros.cli.main import main
from yolact_ros.errors import WeightsError
from yolact_ros.model.weights.download import download, find_file
from yolact_ros.model.weights.published import PUBLISHED, published_file
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.variants import VARIANTS

DATA = Path(__file__).resolve().parents[1] / "data"

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Files(BaseHTTPRequestHandler):
    """Serves files; the first part of the path selects the server's behaviour."""

    def do_GET(self):  # noqa: N802 - the name that http.server calls
        behaviour = self.path.split("/")[1]
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour in ("hub", "lying-hub"):
            digest = SHA256 if behaviour == "hub" else "0" * 64
            self.send_response(302)
            self.send_header("Location", "/silent/storage")
            self.send_header("X-Linked-ETag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(CONTENT)))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        kind = "text/html; charset=utf-8" if behaviour == "page" else "application/octet-stream"
        self.send_header("Content-Type", kind)
        if behaviour != "silent":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        body = CONTENT[: len(CONTENT) // 2] if behaviour == "breaking" else CONTENT
        with suppress(ConnectionError):  # who asks for the size closes without reading
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as http:
        http.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "weights.pth"


def test_a_file_arrives_complete(server, path, capsys):
    remote = find_file(f"{server.url}/good/weights.pth")
    assert remote.size == len(CONTENT) and remote.sha256 is None
    download(remote, path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    captured = capsys.readouterr()
    assert "weights.pth: 100%" in captured.err and captured.out == ""


def test_a_server_need_not_state_anything(server, path):
    remote = find_file(f"{server.url}/silent/weights.pth")
    assert remote.size is None and remote.sha256 is None
    download(remote, path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


def test_a_broken_connection_leaves_no_file(server, path):
    remote = find_file(f"{server.url}/breaking/weights.pth")
    with pytest.raises(WeightsError, match="could not be downloaded.*Check the network"):
        download(remote, path)
    assert list(path.parent.iterdir()) == []


def test_the_hash_stated_in_a_redirect_is_checked_against_the_file(server, path):
    remote = find_file(f"{server.url}/hub/weights.pth")
    assert remote.size == len(CONTENT) and remote.sha256 == SHA256
    download(remote, path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    wrong = find_file(f"{server.url}/lying-hub/weights.pth")
    with pytest.raises(WeightsError, match="0" * 64):
        download(wrong, path.with_name("other.pth"))
    assert list(path.parent.iterdir()) == [path]


def test_a_web_page_is_not_mistaken_for_a_file(server):
    with pytest.raises(WeightsError, match="web page"):
        find_file(f"{server.url}/page/weights.pth")


def test_a_file_that_no_longer_exists_is_reported(server):
    with pytest.raises(WeightsError, match="404 Not Found"):
        find_file(f"{server.url}/missing/weights.pth")


def test_no_connection_is_reported():
    with socket.socket() as free:  # bound but not listening: connections are refused
        free.bind(("127.0.0.1", 0))
        with pytest.raises(WeightsError, match="refused.*Check the network"):
            find_file(f"http://127.0.0.1:{free.getsockname()[1]}/weights.pth")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "yolact_ros"


@pytest.fixture
def publish_at(monkeypatch):
    """Return a function that replaces the address of a network's file."""

    def publish(url, name):
        monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], url=url))

    return publish


def test_one_command_leads_from_the_authors_file_to_detections(
    parity, cache, publish_at, tmp_path, monkeypatch, capsys
):
    torch = pytest.importorskip("torch")
    name = "yolact_edge_mobilenetv2"
    # Of a quarter of the side, which its entries do not show: an export in a tenth of the time.
    monkeypatch.setitem(VARIANTS, name, replace(VARIANTS[name], input_size=(138, 138)))
    web = tmp_path / "web"
    web.mkdir()
    file = web / PUBLISHED[name].file
    torch.save(parity(name).entries, file, _use_new_zipfile_serialization=False)
    handler = partial(SimpleHTTPRequestHandler, directory=str(web))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        publish_at(f"http://127.0.0.1:{http.server_address[1]}/{file.name}", name)
        assert main(["fetch", name]) == 1
        assert "36.3 MB, MIT licence" in (error := capsys.readouterr().err)
        assert "--yes" in error and not cache.exists()
        assert main(["fetch", name, "--yes"]) == 0
        http.shutdown()
        thread.join()
    assert f"--model {name}" in capsys.readouterr().out
    words = ["predict", str(DATA / "coffee.jpg"), "--score-threshold", "0", "--json"]
    found = []
    for model in (name, str(file)):  # both are the export in the cache
        assert main([*words, str(tmp_path / "out.json"), "--model", model]) == 0
        found.append(json.loads((tmp_path / "out.json").read_text()))
    assert found[0] == found[1] and found[0][0]["instances"]
    assert len(list((cache / "models").iterdir())) == 1
    with Segmenter.open(name) as segmenter:  # the node opens models the same way
        assert segmenter.backend_name == "OnnxRuntime"


def test_a_download_that_is_not_a_checkpoint_is_not_kept(server, cache, publish_at, capsys):
    pytest.importorskip("torch")
    publish_at(f"{server.url}/good/{PUBLISHED['yolact_base'].file}", "yolact_base")
    assert main(["fetch", "yolact_base", "--yes"]) == 1
    assert "not a checkpoint that can be read safely" in capsys.readouterr().err
    assert list((cache / "weights").iterdir()) == []


def test_where_nothing_can_be_exported_the_command_for_a_pc_is_named(cache, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["predict", str(DATA / "coffee.jpg"), "--model", "yolact_base", "--yes"]) == 1
    assert "yolact fetch yolact_base -o yolact_base. Copy" in capsys.readouterr().err


def test_the_command_lists_every_published_file(capsys):
    assert main(["fetch"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in PUBLISHED)
    assert "by hand: https://github.com/haotian-liu/yolact_edge" in output


def test_a_file_that_only_a_browser_can_fetch_is_reported(cache, tmp_path, capsys):
    assert main(["fetch", "yolact_edge_vid", "-o", str(tmp_path / "bundle")]) == 1
    assert "https://github.com/haotian-liu/yolact_edge" in capsys.readouterr().err


def test_an_unknown_name_lists_the_known_ones(capsys):
    assert main(["fetch", "yolact_giant"]) == 1
    assert "yolact_plus_base" in capsys.readouterr().err


def test_published_files_are_found_by_variant_and_by_file_name():
    for published in PUBLISHED.values():
        assert published.variant in VARIANTS
        assert published.file.startswith(published.variant)
        assert published_file(published.variant) == published_file(published.file) == published
