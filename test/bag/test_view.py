"""Bags are converted to recordings for the Rerun viewer."""

from __future__ import annotations

import re

import numpy as np
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


def test_objects_of_a_bag_with_depth_are_shown_in_space(
    record, tiny_bundle, tmp_path, capsys, segmenter, images
):
    output, bag = tmp_path / "ride.rrd", record("sqlite3", depths=(0, 2, 3))
    words = ["view", str(bag), "--model", str(tiny_bundle.folder), "--threads", "1"]
    words += ["-o", str(output), "--topic", "/camera/image_raw", "--tracking"]
    assert main([*words, "--depth", "/depth", "--camera-info", "/info", "--instance", "1"]) == 1
    errors = capsys.readouterr().err
    for number in range(6):
        assert (f"Image {number} of {bag}: there is no depth" in errors) == (number in (1, 4, 5))
    verify(output)
    boxes, stamps = show(output, "/space/boxes"), (100, 102, 103)
    assert [f"1970-01-01T00:01:{s - 60}" in boxes for s in range(100, 106)] == [
        s in stamps for s in range(100, 106)
    ]
    # Everything is 2 m away: 2 / 50 m for each pixel off the centre (30, 24).
    (instance, *_) = segmenter.segment(images[0])
    rows, columns = np.nonzero(instance.mask)
    x, y = (
        ((columns.min() + columns.max()) / 2 - 30) / 25,
        ((rows.min() + rows.max()) / 2 - 24) / 25,
    )
    center = re.search(r"\[\[(\S+), (\S+), ([^] ]+)\]", boxes).groups()
    assert [float(number) for number in center] == pytest.approx([x, y, 2], abs=0.02)
    assert "/space/points" in show(output) and "/prototypes" in show(output)


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--depth", "/depth"], "require both"),
        (
            ["--depth", "/depth", "--camera-info", "/none"],
            "no camera info on /none; topics with camera info: /info",
        ),
        (["--depth", "/none", "--camera-info", "/info"], "no images on /none"),
    ],
)
def test_missing_depth_topics_are_named(record, tiny_bundle, tmp_path, capsys, words, reason):
    start = ["view", str(record(depths=(0,))), "--topic", "/camera/image_raw"]
    start += ["--model", str(tiny_bundle.folder), "-o", str(tmp_path / "a.rrd")]
    assert main([*start, *words]) == 1
    assert reason in capsys.readouterr().err
