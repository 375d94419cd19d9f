"""Checkpoints are recovered from shipped bundles by name."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.cli.models import find_checkpoint  # noqa: E402
from yolact_ros.config import SHIPPED_MODELS, PostprocessConfig  # noqa: E402
from yolact_ros.errors import BundleError, ConfigError  # noqa: E402
from yolact_ros.export.recover import recover_checkpoint  # noqa: E402
from yolact_ros.runtime.bundle import checksum  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402
from yolact_ros.train.config import read_train_config  # noqa: E402
from yolact_ros.train.trainer import Trainer  # noqa: E402

DATA = Path(__file__).resolve().parents[1] / "data"
PHOTOGRAPHS = [DATA / f"{name}.jpg" for name in ("coffee", "astronaut", "chelsea")]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", SHIPPED_MODELS)
def test_a_shipped_model_in_torch_finds_what_its_bundle_finds(name, cache):
    path = find_checkpoint(name)
    every = PostprocessConfig(score_threshold=0.05)
    total = 0
    with (
        Segmenter.open(name, postprocess=every) as bundle,
        Segmenter.open(path, postprocess=every) as checkpoint,
    ):
        for photograph in PHOTOGRAPHS:
            image = cv2.imread(str(photograph))
            expected, found = bundle.segment(image), checkpoint.segment(image)
            total += len(expected)
            assert np.array_equal(found.class_ids, expected.class_ids)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
            # The bundle stores its priors in half precision, too; a mask may have another row.
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.25)
            np.testing.assert_allclose(found.mask_scores, expected.mask_scores, atol=1e-2)
    assert total > 0
    assert find_checkpoint(name) == path  # made once


def test_training_starts_from_a_shipped_model_by_its_name(cache, pictures, tmp_path, capsys):
    annotations, images = pictures
    recipe = {
        "variant": "tabletop",
        "model": {"classes": ["square", "disc"]},
        "training": {"annotations": str(annotations), "images": str(images)},
        "start_from": "tabletop",
        "freeze_batch_norm": True,
        "steps": 1, "batch_size": 1, "workers": 0,
    }  # fmt: skip
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    assert main(["train", str(file), "-o", str(tmp_path / "run")]) == 0
    account = (tmp_path / "run" / "transfer.txt").read_text()
    assert account.startswith("Copied 330 of 336 entries") and "tabletop" in account
    file.write_text(yaml.safe_dump({**recipe, "freeze_batch_norm": False}))
    config = read_train_config(file, find_checkpoint=find_checkpoint)
    with pytest.raises(ConfigError, match="Set freeze_batch_norm to true"):
        Trainer(config, tmp_path / "other")


def test_an_unknown_name_gets_the_closest_match(cache):
    with pytest.raises(BundleError, match="did you mean 'tools'"):
        find_checkpoint("tool")


def test_int8_bundles_cannot_be_recovered(tiny_bundle, monkeypatch):
    path = tiny_bundle.folder / "model.json"
    content = json.loads(path.read_text()) | {"precision": "int8"}
    path.write_text(json.dumps(content | {"checksum": checksum(content)}))
    with pytest.raises(BundleError, match="int8.*created from"):
        recover_checkpoint(tiny_bundle.folder, tiny_bundle.folder / "x.pth")
