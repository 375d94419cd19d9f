"""The page, asked over HTTP as a browser asks it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolact_ros import Segmenter
from yolact_ros.cli.main import main
from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.errors import DatasetError
from yolact_ros.runtime.shipped import shipped_file

gradio = pytest.importorskip("gradio")

from yolact_ros.view.page import COLUMNS, Workbench, build_page  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    video = cv2.VideoCapture(str(shipped_file("models/demo/tabletop.mp4")))
    _, image = video.read()
    video.release()
    path = tmp_path_factory.mktemp("page") / "frame.png"
    cv2.imwrite(str(path), image)
    return path


def test_the_page_answers_with_overlay_and_table(picture, monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    from gradio_client import Client, handle_file

    page = build_page((), BackendConfig(threads=1))
    _, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False
    )
    try:
        assert "127.0.0.1" in address
        client = Client(address, verbose=False)
        overlay, table = client.predict(
            handle_file(str(picture)), "tabletop", 0.5, 0.5, api_name="/segment"
        )
        sheet = client.predict(handle_file(str(picture)), "tabletop", api_name="/prototypes")
    finally:
        page.close()
    image = cv2.imread(str(picture))
    with Segmenter.open("tabletop", backend=BackendConfig(threads=1)) as segmenter:
        found = segmenter.segment(image, postprocess=PostprocessConfig(score_threshold=0.5))
    assert table["headers"] == list(COLUMNS)
    assert [row[0] for row in table["data"]] == [i.class_name for i in found]
    assert [row[-1] for row in table["data"]] == [int(i.mask.sum()) for i in found]
    shape = image.shape
    assert len(found) and cv2.imread(_path(overlay)).shape == shape
    assert cv2.imread(_path(sheet)).shape[0] > 100


def _path(answer) -> str:
    return answer["path"] if isinstance(answer, dict) else answer


def test_a_picture_that_cannot_be_read_is_an_error_of_the_package(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DatasetError):
        Workbench(BackendConfig()).segment(tmp_path / "a.png", "tabletop", 0.5, 0.5)


def test_an_empty_picture_gives_an_empty_table(tmp_path):
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((48, 64, 3), np.uint8))
    overlay, rows = Workbench(BackendConfig()).segment(
        tmp_path / "black.png", "tabletop", 0.99, 0.5
    )
    assert rows == [] and overlay.shape == (48, 64, 3)


def test_a_missing_model_is_named_before_the_page_opens(capsys):
    assert main(["serve", "no/such/model", "--port", "0"]) == 1
    assert "no/such/model" in capsys.readouterr().err
