"""The training loop learns, resumes to the same numbers, and stops when it must."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")
yaml = pytest.importorskip("yaml")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.config import to_mapping  # noqa: E402
from yolact_ros.errors import ConfigError, WeightsError, YolactError  # noqa: E402
from yolact_ros.model.weights.checkpoint import (  # noqa: E402
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.train.config import (  # noqa: E402
    DataConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    read_train_config,
)
from yolact_ros.train.metrics import RunLog  # noqa: E402
from yolact_ros.train.optimizer import learning_rate  # noqa: E402
from yolact_ros.train.trainer import Trainer  # noqa: E402
from yolact_ros.train.validation import AP_NAMES, WORST, quality, summary_line  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]

TINY = replace(
    TABLETOP_MODEL, classes=("square", "disc"), input_size=(96, 96), channels=8,
    num_prototypes=4, mask_rescoring=False,
)  # fmt: skip


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def data(pictures) -> DataConfig:
    return DataConfig(str(pictures[0]), str(pictures[1]))


@pytest.fixture
def config(data) -> TrainConfig:
    return TrainConfig(
        model=TINY,
        training=data,
        validation=data,
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-3, gradient_clip=10.0),
        schedule=ScheduleConfig(name="cosine", warm_up_steps=2),
        pretrained=False,
        freeze_batch_norm=True,
        ema_decay=0.9,
        steps=4,
        batch_size=2,
        workers=0,
        threads=1,
        device="cpu",
        checkpoint_interval=2,
        validation_interval=4,
        validation_ap=False,
        log_interval=1,
    )


def test_resuming_yields_bit_identical_weights(config, tmp_path):
    Trainer(config, tmp_path / "whole").run()
    Trainer(config, tmp_path / "parts").run(until=2)
    Trainer(config, tmp_path / "parts", resume=tmp_path / "parts" / "last.pth").run()
    whole = load_checkpoint(tmp_path / "whole" / "last.pth")
    parts = load_checkpoint(tmp_path / "parts" / "last.pth")
    assert whole.step == parts.step == 4
    assert whole.weights.keys() == parts.weights.keys()
    for name, tensor in whole.weights.items():
        assert torch.equal(tensor, parts.weights[name]), name
    rows = rows_of(tmp_path / "parts" / "losses.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]


def test_a_run_learns_its_pictures_and_writes_usable_files(config, tmp_path):
    config = replace(
        config, pretrained=True, ema_decay=0.0, steps=30, log_interval=5, validation_interval=15,
        validation_ap=True,
    )  # fmt: skip
    Trainer(config, tmp_path).run()
    totals = [float(row["total"]) for row in rows_of(tmp_path / "losses.csv")]
    assert totals[-1] < 0.6 * totals[0]
    assert load_model(tmp_path / "last.pth").config == TINY
    assert load_checkpoint(tmp_path / "best.pth").step in (15, 30)
    rows = rows_of(tmp_path / "validation.csv")
    assert [row["step"] for row in rows] == ["15", "30"]
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in AP_NAMES)


def test_a_checkpoint_without_a_part_is_refused_with_a_message(tmp_path):
    path = tmp_path / "part.pth"
    save_checkpoint(path, Yolact(TINY))
    content = torch.load(path, weights_only=True)
    del content["optimizer"], content["step"]
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"part\.pth is incomplete: it lacks optimizer, step\."):
        load_checkpoint(path)


def test_best_is_the_largest_mask_ap_then_the_smallest_loss():
    by_loss = [quality({"total": total}) for total in (2.0, 1.0)]
    no_truth = quality({"total": 1.5, "mask_ap": None})
    by_ap = [quality({"total": t, "mask_ap": ap}) for t, ap in ((0.1, 0.0), (9.0, 0.2))]
    tied = quality({"total": 8.0, "mask_ap": 0.2})
    ascending = [WORST, by_loss[0], no_truth, by_loss[1], *by_ap, tied]
    assert sorted(ascending) == ascending


def test_a_validation_is_reported_in_one_line():
    assert summary_line({"total": 1.5}) == "validation loss 1.500"
    values = {"total": 1.5, "mask_ap": 0.25, "mask_ap50": None, "box_ap": 0.5}
    assert summary_line(values) == "validation loss 1.500, mask AP 25.00, box AP 50.00"


def test_a_log_leaves_unknown_values_empty(tmp_path):
    log = RunLog(tmp_path / "log.csv", ("step", "total", "mask_ap"), last_step=0)
    log.write({"step": 3, "total": 1.25, "mask_ap": None})
    log.write({"step": 4, "total": 1.0})
    log.close()
    assert (tmp_path / "log.csv").read_text() == "step,total,mask_ap\n3,1.25,\n4,1,\n"


def test_a_resumed_log_replaces_the_curves_of_repeated_steps(tmp_path, monkeypatch):
    seconds = itertools.count(1_000_000_000, 10)  # the order of the files is that of their seconds
    monkeypatch.setattr("time.time", lambda: float(next(seconds)))
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for last_step, steps in ((0, {1: 4.0, 2: 3.0, 3: 9.0}), (2, {3: 2.0})):
        log = RunLog(tmp_path / "losses.csv", ("step", "total"), last_step=last_step)
        for step, total in steps.items():
            log.write({"step": step, "total": total})
        log.close()
    curves = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "losses")).Reload()
    scalars = [(event.step, event.value) for event in curves.Scalars("total")]
    assert scalars == [(1, 4.0), (2, 3.0), (3, 2.0)]
    assert (tmp_path / "losses.csv").read_text() == "step,total\n1,4\n2,3\n3,2\n"


def test_tensorboard_shows_precision_over_recall_and_pictures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util.tensor_util import make_ndarray

    log = RunLog(tmp_path / "validation.csv", ("step",), last_step=0)
    precision = np.where(np.arange(101) <= 50, 0.5, 0.0)
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 2] = 255  # red, as BGR
    log.show(7, {"cup": (precision, 4)}, {"a.jpg": picture})
    log.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "validation")).Reload()
    (event,) = found.Tensors("masks at IoU 0.50/cup")
    rows = make_ndarray(event.tensor_proto)  # TP, FP, TN, FN, precision, recall
    assert event.step == 7
    np.testing.assert_allclose(rows[:, 50], [2, 2, 0, 2, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(rows[:, 0], [0, 0, 0, 4, 0, 1], atol=1e-6)
    (event,) = found.Images("detections/a.jpg")
    decoded = cv2.imdecode(np.frombuffer(event.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded, picture)


def test_patience_ends_a_run_for_good(config, tmp_path, monkeypatch, caplog):
    totals = {1: 3.0, 2: 2.0, 3: 2.5, 4: 2.25}
    trainer = Trainer(replace(config, steps=9, validation_interval=1, patience=2), tmp_path)
    assert "without validation" in trainer.summary()
    monkeypatch.setattr(
        "yolact_ros.train.trainer.validate",
        lambda *_, **__: ({"total": totals[trainer.step]}, None),
    )
    with caplog.at_level("INFO", "yolact_ros"):
        trainer.run()
    assert "No better result in 2 validations" in caplog.text
    best = f"{tmp_path / 'best.pth'}: step 2 of 4, validation loss 2.000"
    assert trainer.summary() == best
    again = Trainer(trainer.config, tmp_path, resume=tmp_path / "last.pth")
    again.run()
    assert (again.step, again.summary()) == (4, best)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_part(config, tmp_path):
    trainer = Trainer(config, tmp_path)
    with torch.no_grad():
        trainer.model.head.box_offsets.bias.fill_(float("nan"))
    with pytest.raises(YolactError, match="box is nan"):
        trainer.run()
    assert not (tmp_path / "last.pth").exists()


def test_float16_skips_a_step_that_overflows_and_lowers_its_scale(config, tmp_path):
    trainer = Trainer(replace(config, precision="float16"), tmp_path)
    trainer.learner.load_scale({**trainer.learner.state()["loss_scale"], "scale": 2.0**100})
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.run(until=1)
    after = trainer.model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert trainer.learner.state()["loss_scale"]["scale"] == 2.0**99
    again = Trainer(replace(config, precision="float16"), tmp_path, resume=tmp_path / "last.pth")
    assert again.learner.state()["loss_scale"]["scale"] == 2.0**99
    again.learner.load_scale({**again.learner.state()["loss_scale"], "scale": 1024.0})
    again.run(until=2)
    name = "head.class_logits.bias"
    assert not torch.equal(again.model.state_dict()[name], before[name])


def test_a_gpu_that_is_too_small_is_reported(config, tmp_path, monkeypatch):
    trainer = Trainer(config, tmp_path)

    def forward(_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer.model, "forward", forward)
    with pytest.raises(YolactError, match="memory with 2 images at step 0. Lower batch_size"):
        trainer.run()


def test_a_checkpoint_of_another_network_is_not_resumed(config, tmp_path):
    Trainer(config, tmp_path / "a").run(until=1)
    other = replace(config, model=replace(TINY, channels=16))
    with pytest.raises(WeightsError, match="not the one"):
        Trainer(other, tmp_path / "b", resume=tmp_path / "a" / "last.pth")


def test_a_run_without_data_says_what_to_set(config, tmp_path):
    with pytest.raises(ConfigError, match="training.annotations"):
        Trainer(replace(config, training=DataConfig()), tmp_path)


def test_sigint_saves_a_checkpoint_and_ends_the_command(config, tmp_path):
    plain = to_mapping(
        replace(config, steps=100000, checkpoint_interval=100000, validation=DataConfig())
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-m", "yolact_ros.cli.main", "train", str(tmp_path / "run.yaml")]
        + ["-o", str(tmp_path / "out")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = tmp_path / "out" / "losses.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.is_file() and len(log.read_text().splitlines()) > 2:
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert load_checkpoint(tmp_path / "out" / "last.pth").step >= 2


BROKEN = """
import sys
from yolact_ros.train.config import read_train_config
from yolact_ros.train.loader import TrainingStream
from yolact_ros.train.trainer import Trainer

class Broken(TrainingStream):
    def __getitem__(self, position):
        if position == 9:
            raise ValueError("a fault of our own")
        return super().__getitem__(position)

if __name__ == "__main__":
    trainer = Trainer(read_train_config(sys.argv[1]), sys.argv[2])
    trainer.stream.__class__ = Broken
    trainer.run()
"""


def test_an_error_in_a_worker_process_ends_the_run(config, tmp_path):
    plain = to_mapping(replace(config, steps=100000, workers=1, validation=DataConfig()))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "broken.py").write_text(BROKEN)
    done = subprocess.run(
        [sys.executable, tmp_path / "broken.py", tmp_path / "run.yaml", tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 1
    assert "a fault of our own" in done.stderr


def test_warm_up_grows_to_the_largest_rate_and_cosine_falls_to_zero():
    schedule = ScheduleConfig(name="cosine", warm_up_steps=10, warm_up_start=0.1)
    rates = [learning_rate(s, steps=100, largest=1.0, config=schedule) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.55)
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001


def test_steps_divide_the_rate_by_ten_as_the_reference_does():
    schedule = ScheduleConfig(warm_up_steps=0, drops=(10, 20))
    rates = [learning_rate(s, steps=30, largest=1.0, config=schedule) for s in (0, 9, 10, 20)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01])


def test_the_shipped_recipe_can_be_read_and_changed():
    recipe = read_train_config(
        REPOSITORY / "config" / "train_tabletop.yaml", {"optimizer.learning_rate": 0.5}
    )
    assert recipe.model == TABLETOP_MODEL
    assert recipe.optimizer.learning_rate == 0.5


def test_a_misspelt_setting_is_refused_by_the_command(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("variant: tabletop\nbatchsize: 4\n")
    assert main(["train", str(tmp_path / "run.yaml"), "-o", str(tmp_path / "out")]) == 1
    assert "batch_size" in capsys.readouterr().err


def test_frozen_parts_must_come_from_the_checkpoint(config, tmp_path):
    first = tmp_path / "first" / "last.pth"
    other = replace(TINY, classes=("square", "cup"))
    Trainer(replace(config, model=other), tmp_path / "first").run(until=1)
    config = replace(config, start_from=str(first))
    message = r"head\.class_logits\.weight.*would stay random.*variant: checkpoint"
    for settings in ({"frozen": ("head",)}, {"trained": ("protonet",)}):
        with pytest.raises(ConfigError, match=message):
            Trainer(replace(config, **settings), tmp_path / "second")
    Trainer(replace(config, frozen=("protonet",)), tmp_path / "third")
    Trainer(replace(config, model=other, frozen=("head",)), tmp_path / "fourth")


@pytest.mark.parametrize("setting", ["frozen", "trained"])
def test_a_part_that_the_network_lacks_is_reported(config, tmp_path, setting):
    with pytest.raises(ConfigError, match=f"{setting} names 'neck'.*its parts are: backbone, fpn"):
        Trainer(replace(config, **{setting: ("neck",)}), tmp_path / "run")


def test_only_the_named_parts_are_trained(config, tmp_path):
    trainer = Trainer(replace(config, trained=("head", "protonet.")), tmp_path / "run")
    learning = {n.split(".")[0] for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert learning == {"head", "protonet"}


def test_a_run_for_other_classes_starts_from_a_checkpoint_and_writes_a_report(config, tmp_path):
    first = tmp_path / "first" / "last.pth"
    other = replace(TINY, classes=("square",))
    Trainer(replace(config, model=other), tmp_path / "first").run(until=1)
    trainer = Trainer(replace(config, start_from=str(first)), tmp_path / "second")
    taken = load_checkpoint(first).weights
    own = trainer.model.state_dict()
    assert torch.equal(own["fpn.predict_layers.0.weight"], taken["fpn.predict_layers.0.weight"])
    assert "head.class_logits.bias" in (tmp_path / "second" / "transfer.txt").read_text()
    trainer.run(until=1)
    first.unlink()  # a resumed run has no more use for it
    resume = tmp_path / "second" / "last.pth"
    Trainer(replace(config, start_from=str(first)), tmp_path / "second", resume=resume)
