"""Two processes under torchrun train as one does with the same batches."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")
yaml = pytest.importorskip("yaml")

from yolact_ros.config import to_mapping  # noqa: E402
from yolact_ros.errors import ConfigError  # noqa: E402
from yolact_ros.evaluate.training_ap import ApScorer  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_checkpoint  # noqa: E402
from yolact_ros.train.config import (  # noqa: E402
    DataConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from yolact_ros.train.distributed import DistributedContext, choose_device  # noqa: E402
from yolact_ros.train.loader import StepPositions  # noqa: E402
from yolact_ros.train.losses import LossConfig  # noqa: E402
from yolact_ros.train.trainer import Trainer  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]

# Re-scoring needs prototypes of 63 cells, and takes no part in every batch: the harder case.
TINY = replace(
    TABLETOP_MODEL, classes=("square", "disc"), input_size=(256, 256), channels=8,
    num_prototypes=4,
)  # fmt: skip


def torchrun(config: TrainConfig, folder: Path) -> subprocess.CompletedProcess:
    """Train with two processes that share each batch."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(to_mapping(config)))
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        + ["-m", "yolact_ros.cli.main", "train", str(path), "-o", str(folder / "out")],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def config(pictures) -> TrainConfig:
    data = DataConfig(str(pictures[0]), str(pictures[1]))
    return TrainConfig(
        model=TINY,
        training=data,
        validation=data,
        losses=LossConfig(masks_to_train=20),  # fewer than there are, so the draw must agree
        optimizer=OptimizerConfig(learning_rate=1e-3, gradient_clip=10.0),
        schedule=ScheduleConfig(warm_up_steps=0, drops=()),
        pretrained=False,
        ema_decay=0.9,
        steps=2,
        batch_size=4,
        validation_images=6,
        workers=0,
        threads=1,
        device="cpu",
        log_interval=1,
    )


def rows_of(path: Path) -> list[dict[str, float]]:
    rows = csv.DictReader(path.read_text().splitlines())
    return [
        {k: float(v) for k, v in row.items() if v and k != "images_per_second"} for row in rows
    ]


def test_two_processes_do_the_steps_of_one(config, tmp_path):
    result = torchrun(config, tmp_path)
    assert result.returncode == 0, result.stderr
    Trainer(config, tmp_path / "one", scorer=ApScorer()).run()
    for name in ("losses.csv", "validation.csv"):
        rows, expected = rows_of(tmp_path / "out" / name), rows_of(tmp_path / "one" / name)
        assert len(rows) == len(expected)
        for row, other in zip(rows, expected, strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-3)
    assert "mask_ap" in row  # of the images of both processes
    one = load_checkpoint(tmp_path / "one" / "last.pth")
    two = load_checkpoint(tmp_path / "out" / "last.pth")
    assert one.weights.keys() == two.weights.keys()
    for key in ("training_weights", None):
        weights = (one.weights, two.weights) if key is None else (one.extra[key], two.extra[key])
        for name, tensor in weights[0].items():
            torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_the_parts_of_a_step_are_its_batch():
    parts = [list(StepPositions(range(2, 4), share=3, batch_size=6, place=i)) for i in (0, 1)]
    assert parts[0] == [[12, 13, 14], [18, 19, 20]]
    assert parts[1] == [[15, 16, 17], [21, 22, 23]]
    assert list(StepPositions(range(4, 4), share=3, batch_size=6, place=0)) == []


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    processes = DistributedContext(torch.device("cpu"), rank=1, count=3)
    assert processes.per_process_batch(12) == 4
    with pytest.raises(ConfigError, match="multiple of 3"):
        processes.per_process_batch(8)


def test_one_process_is_its_own_company():
    alone = DistributedContext(choose_device("cpu"))
    assert alone.first and alone.gather("a") == ["a"]
    assert alone.any(True) and not alone.any(False)
    assert float(alone.sum(torch.tensor(3.0))) == 3
