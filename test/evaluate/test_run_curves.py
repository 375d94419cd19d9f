"""Curves of training runs: what the logs say is what is drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402
from yolact_ros.evaluate.run_curves import draw_runs, read_run  # noqa: E402

LOSSES = """step,learning_rate,box,mask,total,images_per_second
20,0.001,4.0,2.0,6.0,3.5
40,0.002,3.0,1.0,4.0,3.6
"""
VALIDATION = """step,box,mask,total,box_ap,mask_ap,mask_ap50
20,4.5,2.5,7.0,,,
40,3.5,1.5,5.0,0.3,0.25,0.5
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "first"
    path.mkdir()
    (path / "losses.csv").write_text(LOSSES)
    (path / "validation.csv").write_text(VALIDATION)
    return path


def lines_of(figure):
    """Title of a panel to the (x, y) data of its lines by their labels."""
    return {
        axes.get_title(): {line.get_label(): line.get_xydata() for line in axes.get_lines()}
        for axes in figure.axes
        if axes.get_visible()
    }


def test_every_column_has_its_panel_and_every_row_its_point(folder):
    lines = lines_of(draw_runs([read_run(folder)]))
    assert list(lines) == ["total", "box", "mask", "AP", "learning rate", "images per second"]
    np.testing.assert_array_equal(lines["box"]["training"], [[20, 4], [40, 3]])
    np.testing.assert_array_equal(lines["box"]["validation"], [[20, 4.5], [40, 3.5]])
    np.testing.assert_allclose(lines["AP"]["mask AP50"], [[20, np.nan], [40, 50]])


def test_runs_are_compared_by_name_also_where_one_lacks_a_part(folder, tmp_path):
    other = tmp_path / "second"
    other.mkdir()
    (other / "losses.csv").write_text("step,learning_rate,flow,total\n10,0.1,9.0,9.0\n")
    lines = lines_of(draw_runs([read_run(folder), read_run(other)]))
    assert set(lines["total"]) == {"first training", "first validation", "second training"}
    assert set(lines["flow"]) == {"second training"}


def test_a_line_that_is_being_written_does_not_count(folder):
    with (folder / "losses.csv").open("a") as file:
        file.write("60,0.0")
    assert read_run(folder).training["step"].tolist() == [20, 40]


def test_the_command_writes_a_picture_beside_the_logs(folder, capsys):
    assert main(["plot", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "curves.png")
    picture = cv2.imread(str(folder / "curves.png"))
    assert picture.std() > 5


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "cannot be read.*yolact train"),
        ("step,total\n", "no line yet"),
        ("epoch,loss\n1,2\n", "no column 'step'"),
        ("step,total\n1,many\n", "no number"),
    ],
)
def test_what_is_no_log_is_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "losses.csv").write_text(content)
    with pytest.raises(DatasetError, match=words):
        read_run(tmp_path)
