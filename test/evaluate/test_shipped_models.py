"""The shipped models find their classes in images that they were not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import recorded

pytest.importorskip("onnxruntime")
pytest.importorskip("pycocotools")
pytest.importorskip("pybullet")

from yolact_ros.config import SHIPPED_MODELS, PostprocessConfig  # noqa: E402
from yolact_ros.datasets.coco import CocoDataset  # noqa: E402
from yolact_ros.evaluate.coco_map import evaluate_dataset  # noqa: E402
from yolact_ros.runtime.bundle import Bundle  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402
from yolact_ros.simulate.generate import write_images  # noqa: E402

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_a_shipped_model_is_small_and_says_what_it_is(name):
    bundle = Bundle.open(MODELS / name)
    assert bundle.description.model.name == name
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 16e6


def test_things_on_a_simulated_table_are_found(tmp_path):
    write_images(tmp_path / "scenes", seed=910_000, frames=12, size=(336, 448))
    config = PostprocessConfig(score_threshold=0.05)
    with Segmenter.open(MODELS / "tabletop", postprocess=config) as segmenter:
        dataset = CocoDataset(
            tmp_path / "scenes" / "instances.json",
            tmp_path / "scenes" / "images",
            classes=segmenter.description.model.classes,
        )
        scores = evaluate_dataset(segmenter.segment, dataset).scores
    # models/README.md has the numbers of 300 pictures; these are twelve, so they vary.
    print(scores.mask["ap50"], scores.box["ap"])
    assert scores.mask["ap50"] > 0.7
    assert scores.box["ap"] > 0.45


def test_no_hand_tool_is_found_in_a_cup_of_coffee():
    with Segmenter.open(MODELS / "tools") as segmenter:
        assert len(segmenter.segment(recorded.picture("yolact_resnet50"))) == 0
