"""Import exported data sets through the command line."""

from __future__ import annotations

import random

import pytest


@pytest.fixture
def bring(tmp_path, capsys):
    """Import into a new folder; return exit status, output and a function that opens splits."""
    pytest.importorskip("pycocotools.mask")
    from yolact_ros.cli.main import main
    from yolact_ros.datasets.coco import CocoDataset

    def run(*words):
        out = tmp_path / f"out{random.random()}"
        status = main(["import-dataset", *map(str, words), "-o", str(out)])
        printed = capsys.readouterr()

        def split(name="train"):
            return CocoDataset(out / f"{name}.json", out / name)

        return status, printed.out + printed.err, split

    return run
