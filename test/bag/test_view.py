"""Bags in recordings for the Rerun viewer."""

from __future__ import annotations

import pytest
from rrd import show, verify

from yolact_ros.cli.main import main

pytest.importorskip("rerun")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_is_shown_on_the_timeline_of_its_stamps(
    record, tiny_bundle, tmp_path, capsys, storage
):
    output = tmp_path / "ride.rrd"
    words = ["--model", str(tiny_bundle.folder), "--threads", "1", "-o", str(output)]
    assert main(["view", str(record(storage, spoiled=(3,))), *words]) == 1
    assert "Image 3 of" in capsys.readouterr().err
    verify(output)
    boxes = show(output, "/camera/image_raw/boxes")
    stamps = [f"1970-01-01T00:01:{40 + number}.000000007" for number in range(6)]
    assert [stamp in boxes for stamp in stamps] == [number != 3 for number in range(6)]
    images = show(output, "/camera/image_raw")
    assert "Image" in images and stamps[5] in images
    # Rerun reads the other topics itself, from the storage that it knows.
    assert ("entity_path: /words " in show(output)) == (storage == "mcap")
