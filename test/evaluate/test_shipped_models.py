"""The shipped models find what models/README.md says, on photographs that they never saw."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")

from yolact_ros.config import PostprocessConfig  # noqa: E402
from yolact_ros.datasets.coco import CocoDataset  # noqa: E402
from yolact_ros.evaluate.coco_map import evaluate_coco  # noqa: E402
from yolact_ros.runtime.bundle import Bundle  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("name", ["tabletop", "tools"])
def test_a_shipped_model_is_small_and_says_what_it_is(name):
    bundle = Bundle.open(MODELS / name)
    assert bundle.description.model.name == name
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 16e6


def test_hand_tools_are_found_on_photographs(shared):
    tools = shared / "data" / "tools"
    config = PostprocessConfig(score_threshold=0.05)
    with Segmenter.open(MODELS / "tools", postprocess=config) as segmenter:
        dataset = CocoDataset(
            tools / "instances_val.json",
            tools / "val",
            classes=segmenter.description.model.classes,
        )
        scores = evaluate_coco(segmenter.segment, dataset, limit=40)
    # Of all 164 photographs the numbers are in models/README.md; a quarter of them varies.
    assert scores.mask["ap50"] > 0.6
    assert scores.box["ap"] > 0.35
