"""Damaged checkpoints, recipes and run folders either work or are refused with a message."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from mutations import VALUES, mutate_bytes, mutate_json

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")
yaml = pytest.importorskip("yaml")

from yolact_ros.config import to_mapping
from yolact_ros.errors import ConfigError, WeightsError, YolactError
from yolact_ros.model.weights.checkpoint import load_model, save_checkpoint
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import DataConfig, OptimizerConfig, TrainConfig, read_train_config
from yolact_ros.train.trainer import Trainer
from yolact_ros.variants import TABLETOP_MODEL

TINY = replace(
    TABLETOP_MODEL, classes=("square", "disc"), input_size=(64, 64), channels=8,
    num_prototypes=4, mask_rescoring=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataConfig:
    import json

    import cv2

    folder = tmp_path_factory.mktemp("data")
    square = [10, 10, 50, 10, 50, 50, 10, 50]
    for i in range(4):
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[10:50, 10:50] = 255
        cv2.imwrite(str(folder / f"{i}.png"), picture)
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 64, "width": 64} for i in range(4)
        ],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1 + i % 2, "segmentation": [square]}
            for i in range(4)
        ],
        "categories": [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return DataConfig(str(folder / "instances.json"), str(folder))


@pytest.fixture
def config(data) -> TrainConfig:
    return TrainConfig(
        model=TINY,
        training=data,
        pretrained=False,
        freeze_batch_norm=True,
        steps=2,
        batch_size=2,
        workers=0,
        threads=1,
        device="cpu",
        optimizer=OptimizerConfig(name="adamw"),
    )


def test_random_checkpoints(tmp_path):
    random = np.random.default_rng(3)
    path = tmp_path / "good.pth"
    save_checkpoint(path, Yolact(TINY), step=3)
    good = torch.load(path, weights_only=True)
    names = list(good["weights"])
    plain = {name: value for name, value in good.items() if name != "weights"}
    refused = 0
    for number in range(120):
        content = {**mutate_json(plain, random, changes=1), "weights": dict(good["weights"])}
        if number % 3 == 0:
            content = {**good, "weights": dict(good["weights"])}
            name = names[int(random.integers(len(names)))]
            old = good["weights"][name].float()
            content["weights"][name] = [
                old.to_sparse(), torch.empty(old.shape, device="meta"), 3, None, old * np.nan,
                old.reshape(-1), torch.zeros(2, 2, dtype=torch.complex64), "x",
            ][number // 3 % 8]  # fmt: skip
        torch.save(content, tmp_path / "bad.pth")
        try:
            load_model(tmp_path / "bad.pth")
        except YolactError as error:
            refused += 1
            assert len(str(error)) > 20
    assert refused > 60


def test_random_bytes_of_checkpoints(tmp_path):
    random = np.random.default_rng(4)
    torch.save({"format": "yolact_ros.checkpoint/1", "weights": {}}, tmp_path / "good.pth")
    good = (tmp_path / "good.pth").read_bytes()
    for _ in range(200):
        (tmp_path / "bad.pth").write_bytes(mutate_bytes(good, random))
        with pytest.raises(YolactError):
            load_model(tmp_path / "bad.pth")


def test_random_recipes(tmp_path):
    random = np.random.default_rng(5)
    good = to_mapping(TrainConfig())
    path = tmp_path / "recipe.yaml"
    refused = 0
    for number in range(300):
        content = mutate_json(good, random, changes=3)
        if number % 5 == 0:
            content[VALUES[number // 5 % 15]] = 1
        text = yaml.safe_dump(content)
        if number % 7 == 0:
            text = mutate_bytes(text.encode(), random).decode("utf-8", "replace")
        path.write_text(text)
        try:
            read_train_config(path)
        except YolactError as error:
            refused += 1
            assert len(str(error)) > 20
    assert refused > 70


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"\xff\xfe", b"a: 2020-13-45", b"? [1, 2]\n: 3", b"5: 1", b"", b"- 1"],
)
def test_anything_but_a_recipe_is_refused(tmp_path, content):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(ConfigError):
        read_train_config(tmp_path / "recipe.yaml")


def test_random_states_of_training(tmp_path, config):
    random = np.random.default_rng(6)
    Trainer(config, tmp_path / "run").run()
    good = torch.load(tmp_path / "run" / "last.pth", weights_only=True)
    refused = 0
    for number in range(30):
        content = dict(good)
        entry = ("optimizer", "extra", "step")[number % 3]
        content[entry] = mutate_json({"x": good[entry]}, random, changes=1).get("x")
        torch.save(content, tmp_path / "bad.pth")
        try:
            longer = replace(config, steps=3)
            Trainer(longer, tmp_path / "again", resume=tmp_path / "bad.pth").run()
        except YolactError as error:
            refused += 1
            assert len(str(error)) > 20
    assert refused > 7


def test_a_diverging_run_ends_with_an_error_message(tmp_path, config):
    losses = replace(config.losses, mask_upsampling=4)  # which takes the logarithm of a mask
    trainer = Trainer(replace(config, steps=20, losses=losses), tmp_path)
    with torch.no_grad():
        next(trainer.model.head.parameters()).mul_(1e30)
    with pytest.raises(YolactError, match="not finite at step 0.*Lower the learning rate"):
        trainer.run()


def test_paths_that_cannot_be_written_are_reported(tmp_path, config):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "below", "/proc/x/y", tmp_path / ("n" * 300)):
        with pytest.raises(YolactError, match="cannot be created"):
            Trainer(config, folder)


def test_a_full_disk_is_reported_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last.pth", Yolact(TINY), step=3)
    before = (tmp_path / "last.pth").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match="cannot be written.*No space left"):
        save_checkpoint(tmp_path / "last.pth", Yolact(TINY), step=4)
    assert (tmp_path / "last.pth").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


def test_sigterm_saves(tmp_path, config):
    trainer = Trainer(replace(config, steps=100_000), tmp_path)

    def terminate():
        while trainer.step < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGTERM) is before
    assert torch.load(tmp_path / "last.pth", weights_only=True)["step"] == trainer.step


def test_a_validation_that_was_interrupted_is_repeated(tmp_path, config, data):
    config = replace(config, validation=data, validation_interval=2, validation_ap=False, steps=4)
    trainer = Trainer(config, tmp_path)
    trainer._validate = lambda: (_ for _ in ()).throw(KeyboardInterrupt)  # killed meanwhile
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    Trainer(config, tmp_path, resume=tmp_path / "last.pth").run()
    lines = (tmp_path / "validation.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "2", "4"]
