"""Two torchrun processes, on one node or two, train as one process does with the same batches."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")
yaml = pytest.importorskip("yaml")

from yolact_ros.config import to_mapping  # noqa: E402
from yolact_ros.errors import ConfigError  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_checkpoint  # noqa: E402
from yolact_ros.train.config import (  # noqa: E402
    DataConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from yolact_ros.train.distributed import DistributedContext, choose_device  # noqa: E402
from yolact_ros.train.loader import step_positions  # noqa: E402
from yolact_ros.train.losses import LossConfig  # noqa: E402
from yolact_ros.train.trainer import Trainer  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]

# Re-scoring needs prototypes of 63 cells, and takes no part in every batch: the harder case.
TINY = replace(
    TABLETOP_MODEL, classes=("square", "disc"), input_size=(256, 256), channels=8,
    num_prototypes=4,
)  # fmt: skip


def start(options: list[str], words: list[str]) -> subprocess.Popen[bytes]:
    """Start `yolact train` under torchrun, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options]
        + ["-m", "yolact_ros.cli.main", "train", *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def start_two_nodes(words: list[str]) -> list[subprocess.Popen[bytes]]:
    """Start two agents that meet on a port of this machine, with one process each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={address}", "--rdzv-id=run"]
    options = ["--nnodes=2", "--nproc-per-node=1", "--local-addr=127.0.0.1", *rendezvous]
    return [start(options, words) for _ in range(2)]


def wait(*agents: subprocess.Popen[bytes]) -> list[int]:
    """Wait until all have ended by themselves; return their exit statuses."""
    try:
        return [agent.wait(timeout=300) for agent in agents]
    finally:
        end(*agents)


def end(*agents: subprocess.Popen[bytes]) -> None:
    """Kill the agents and their processes, which torchrun puts into groups of their own."""
    for agent in agents:
        groups = [agent.pid]
        for task in Path(f"/proc/{agent.pid}/task").glob("*/children"):
            groups += map(int, task.read_text().split())
        for group in groups if agent.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        agent.wait()


def write_recipe(config: TrainConfig, folder: Path) -> str:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(to_mapping(config)))
    return str(path)


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


def assert_equal_runs(found: Path, expected: Path) -> None:
    for name in ("losses.csv", "validation.csv"):
        rows, others = rows_of(found / name), rows_of(expected / name)
        assert len(rows) == len(others)
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-3)
    assert "mask_ap" in row  # of the images of both processes
    one, two = (load_checkpoint(folder / "last.pth") for folder in (expected, found))
    assert one.weights.keys() == two.weights.keys()
    for key in ("training_weights", None):
        weights = (one.weights, two.weights) if key is None else (one.extra[key], two.extra[key])
        for name, tensor in weights[0].items():
            torch.testing.assert_close(weights[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_two_processes_take_the_same_steps_as_one(config, tmp_path):
    words = [write_recipe(config, tmp_path), "-o", str(tmp_path / "out")]
    assert wait(start(["--standalone", "--nproc-per-node=2"], words)) == [0]
    Trainer(config, tmp_path / "one").run()
    assert_equal_runs(tmp_path / "out", tmp_path / "one")


def test_two_nodes_resume_to_the_steps_of_one_process_after_losing_one(config, tmp_path):
    config = replace(config, steps=4, checkpoint_interval=1, validation_interval=4)
    out = tmp_path / "out"
    agents = start_two_nodes([write_recipe(config, tmp_path), "-o", str(out)])
    deadline = time.monotonic() + 300
    while not (out / "last.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    end(agents[0])  # the node where they met
    print("exit status of the other node:", wait(agents[1]))  # which gives up by itself
    assert (out / "last.pth").exists()
    assert wait(*start_two_nodes(["--resume", str(out)])) == [0, 0]
    Trainer(config, tmp_path / "one").run()
    assert_equal_runs(out, tmp_path / "one")


def test_the_parts_of_a_step_add_up_to_its_batch():
    parts = [list(step_positions(range(2, 4), batch_size=6, part=(i, 2))) for i in (0, 1)]
    assert parts[0] == [[12, 13, 14], [18, 19, 20]]
    assert parts[1] == [[15, 16, 17], [21, 22, 23]]
    assert list(step_positions(range(4, 4), batch_size=6, part=(0, 2))) == []


def test_a_batch_that_cannot_be_divided_evenly_is_refused():
    processes = DistributedContext(torch.device("cpu"), rank=1, count=3)
    assert processes.per_process_batch(12) == 4
    with pytest.raises(ConfigError, match="multiple of 3"):
        processes.per_process_batch(8)


def test_one_process_needs_no_others():
    alone = DistributedContext(choose_device("cpu"))
    assert alone.first and alone.gather("a") == ["a"]
    assert alone.any(True) and not alone.any(False)
    assert float(alone.sum(torch.tensor(3.0))) == 3
