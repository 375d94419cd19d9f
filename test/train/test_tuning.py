"""Precision, batch size and learning rate are tuned before a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.errors import ConfigError, YolactError  # noqa: E402
from yolact_ros.train import tuning  # noqa: E402
from yolact_ros.train.config import DataConfig, OptimizerConfig, TrainConfig  # noqa: E402
from yolact_ros.train.distributed import DistributedContext  # noqa: E402
from yolact_ros.train.run_folder import commented_yaml  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

ALONE = DistributedContext(torch.device("cpu"))
TINY = replace(
    TABLETOP_MODEL, classes=("square", "disc"), input_size=(96, 96), channels=8,
    num_prototypes=4, mask_rescoring=False,
)  # fmt: skip


@pytest.fixture
def config(pictures):
    return TrainConfig(
        model=TINY,
        training=DataConfig(str(pictures[0]), str(pictures[1])),
        optimizer=OptimizerConfig(name="adamw"),
        pretrained=False,
        freeze_batch_norm=True,
        batch_size=2,
        steps=4,
        workers=0,
        threads=1,
        device="cpu",
        precision="auto",
    )


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("flags\t: fpu avx512f avx512_bf16 clflush\n", True),
        ("Features : fp asimd bf16\n", True),
        ("flags : avx2 avx512f\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_detected_by_the_flags_of_the_cpu(text, known, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    assert tuning.cpu_has_bfloat16(str(tmp_path / "cpuinfo")) == known
    assert not tuning.cpu_has_bfloat16(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("seconds", "chosen"), [(0.5, "bfloat16"), (0.95, "float32"), (3.0, "float32")]
)
def test_auto_selects_bfloat16_where_it_is_faster(seconds, chosen, config, monkeypatch, caplog):
    monkeypatch.setattr(tuning, "cpu_has_bfloat16", lambda: True)
    times = {"float32": 1.0, "bfloat16": seconds}
    monkeypatch.setattr(tuning, "_time_steps", lambda _: times)
    with caplog.at_level("INFO", "yolact_ros"):
        assert tuning.choose_cpu_precision(config, ALONE).precision == chosen
    assert f"Precision {chosen}: steps in bfloat16 take {seconds:.2f}" in caplog.text
    fixed = replace(config, precision="float16")
    assert tuning.choose_cpu_precision(fixed, ALONE) is fixed


def test_both_precisions_are_timed_on_real_steps(config):
    seconds = tuning._time_steps(config)
    assert set(seconds) == {"float32", "bfloat16"}
    assert min(seconds.values()) > 0


def test_a_precision_without_finite_gradients_is_not_chosen(config, monkeypatch):
    learn = tuning.Learner.learn

    def learn_in_float32(self, *args, **kwargs):
        if self.config.precision == "bfloat16":
            raise YolactError("The gradient is not finite.")
        return learn(self, *args, **kwargs)

    monkeypatch.setattr(tuning.Learner, "learn", learn_in_float32)
    monkeypatch.setattr(tuning, "cpu_has_bfloat16", lambda: True)
    assert tuning.choose_cpu_precision(config, ALONE).precision == "float32"


@pytest.mark.parametrize(("gigabytes", "size"), [(10, 64), (2.1, 16), (1.2, 8), (0.4, 1)])
def test_the_largest_batch_that_fits_is_chosen(gigabytes, size, config, monkeypatch):
    def peak(_, __, *, images):  # 0.25 + 0.1 GB an image
        assert images <= 2 * size
        return 0.25e9 + 0.1e9 * images

    monkeypatch.setattr(tuning, "_peak_memory", peak)
    found = tuning.choose_batch_size(config, ALONE, gigabytes=gigabytes)
    assert found.batch_size == size


@pytest.mark.parametrize("gigabytes", [float("nan"), float("inf"), 0.0, -1.0])
def test_an_invalid_amount_of_memory_is_refused(config, gigabytes):
    with pytest.raises(ConfigError, match="--memory is"):
        tuning.choose_batch_size(config, ALONE, gigabytes=gigabytes)


def test_memory_is_measured_on_real_steps(config, monkeypatch):
    monkeypatch.setattr(tuning, "LARGEST_BATCH", 2)
    assert tuning.choose_batch_size(config, ALONE, gigabytes=1000).batch_size == 2
    with pytest.raises(ConfigError, match="step with one image takes more than"):
        tuning.choose_batch_size(config, ALONE, gigabytes=0.01)


def test_the_suggested_rate_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-6, 1, 61)
    position = np.log10(rates)
    losses = (5 - 4 / (1 + np.exp(-6 * (position + 3))) + np.maximum(position + 1, 0) * 9).tolist()
    # The moving average follows by about nine steps of a tenth of a decade.
    assert 1e-3 < tuning.steepest(rates, losses) < 1e-2
    for rising in ([], np.linspace(1, 3, 40).tolist(), [4.0, *np.linspace(1, 3, 60)]):
        with pytest.raises(ConfigError, match="did not fall at any learning rate"):
            tuning.steepest(rates, rising)


def test_the_command_finds_a_rate_and_stores_it(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "RATE_STEPS", 24)
    monkeypatch.setattr(tuning, "RATES", (3e-4, 1.0))
    monkeypatch.setattr(tuning, "LARGEST_BATCH", 1)
    monkeypatch.setattr(tuning, "cpu_has_bfloat16", lambda: False)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(commented_yaml(replace(config, pretrained=True, batch_size=4)))
    run = tmp_path / "run"
    assert main(["train", str(recipe), "-o", str(run), "--find-rate"]) == 0
    text = capsys.readouterr().out
    rate = float(text.partition("optimizer.learning_rate=")[2])
    assert 3e-4 <= rate <= 0.3 and not run.exists()
    words = ["train", str(recipe), "-o", str(run), "--memory", "1000", "--set", "steps=1"]
    assert main(words) == 0
    assert "Next: yolact export" in capsys.readouterr().out
    kept = (run / "recipe.yaml").read_text()
    assert "precision: float32" in kept and "batch_size: 1\n" in kept.replace(" #", "\n")
