"""A run never overwrites other results, and resumes as if it had not been interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")
yaml = pytest.importorskip("yaml")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.errors import ConfigError  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_checkpoint  # noqa: E402
from yolact_ros.train.run_folder import claimed  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(pictures, tmp_path):
    """Write a recipe of a tiny network; return its path."""

    def write(**changes):
        annotations, images = map(str, pictures)
        data = {"annotations": annotations, "images": images}
        values = {
            "variant": "tabletop",
            "model": {"classes": ["square", "disc"], "input_size": [96, 96], "channels": 8,
                      "num_prototypes": 4, "mask_rescoring": False},
            "training": data, "validation": data, "pretrained": False, "steps": 2,
            "batch_size": 2, "workers": 0, "threads": 1, "device": "cpu", "log_interval": 1,
            "freeze_batch_norm": True, "checkpoint_interval": 1, "validation_interval": 2,
            "validation_ap": False, "validation_images": 4,
            "schedule": {"name": "cosine", "warm_up_steps": 1},
        }  # fmt: skip
        values.update(changes)
        path = tmp_path / "recipe_of_mine.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_a_folder_with_a_run_is_refused_and_can_be_resumed_by_its_name(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(recipe()), "-o", str(run)]) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    capsys.readouterr()
    assert main(["train", str(recipe()), "-o", str(run)]) == 1
    printed = capsys.readouterr().err
    assert "already contains a run" in printed and f"--resume {run}" in printed
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    words = ["--set", "steps=3", "--set", "model.name=other"]
    assert main(["train", "--resume", str(run), *words[:2]]) == 0
    assert load_checkpoint(run / "last.pth").step == 3
    assert "steps: 3" in (run / "recipe.yaml").read_text()
    assert main(["train", "--resume", str(run / "last.pth"), "--set", "steps=4"]) == 0
    assert load_checkpoint(run / "last.pth").step == 4


def test_a_missing_run_to_resume_is_named(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path)]) == 1
    assert "last.pth" in capsys.readouterr().err
    assert main(["train"]) == 1
    assert "--data" in capsys.readouterr().err


def test_a_second_run_into_a_folder_is_refused(tmp_path):
    with claimed(tmp_path, "steps: 1\n", resume=False):
        with pytest.raises(ConfigError, match="Another run"):
            with claimed(tmp_path, "steps: 2\n", resume=True):
                pass
        assert (tmp_path / "recipe.yaml").read_text() == "steps: 1\n"
    with claimed(tmp_path, "steps: 2\n", resume=True):
        pass


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_a_folder_that_cannot_be_created_is_reported(recipe, tmp_path, capsys, place):
    (tmp_path / "file").write_text("")
    assert main(["train", str(recipe()), "-o", str(tmp_path / place)]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["square", "Disc"], ["square ", "dics"], ["squares", "disc"]])
def test_a_misspelt_class_is_named_before_the_first_step(recipe, tmp_path, capsys, names):
    change = f"model.classes={json.dumps(names)}"
    status = main(["train", str(recipe()), "-o", str(tmp_path / "run"), "--set", change])
    assert status == 1
    printed = capsys.readouterr().err
    assert "did you mean" in printed and "from_annotations" in printed
    assert not (tmp_path / "run" / "last.pth").exists()
    assert main(["train", str(recipe()), "-o", str(tmp_path / "run")]) == 0  # corrected


def test_classes_come_from_the_annotations(recipe, pictures, tmp_path):
    content = json.loads(pictures[0].read_text())
    content["categories"].append({"id": 1, "name": "parts"})  # has no instance
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "train").symlink_to(pictures[1])
    words = ["train", str(recipe()), "--data", str(folder), "-o", str(tmp_path / "run")]
    assert main(words) == 0
    assert load_checkpoint(tmp_path / "run" / "last.pth").config.classes == ("square", "disc")
    assert main(["train", "--data", str(tmp_path)]) == 1


def test_a_broken_validation_picture_does_not_end_a_run(
    recipe, pictures, tmp_path, caplog, capsys
):
    folder = tmp_path / "validation"
    folder.mkdir()
    for path in pictures[1].glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "0.png").write_text("no picture")
    words = ["--set", f"validation.images={folder}", "--set", "validation_ap=true"]
    run = tmp_path / "run"
    assert main(["train", str(recipe()), "-o", str(run), *words]) == 0
    assert len((run / "validation.csv").read_text().splitlines()) == 2
    assert "left out of validations" in caplog.text
    for path in folder.iterdir():
        path.write_text("no picture")
    assert main(["train", str(recipe()), "-o", str(tmp_path / "none"), *words]) == 1
    assert "No image" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from yolact_ros.train import trainer
from yolact_ros.cli.main import main
whole = trainer.validate
def validate(*arguments, **options):
    if os.path.exists(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **options)
trainer.validate = validate
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("steps", [2, 3])  # the validation is the run's last one, or is not
def test_a_run_killed_during_validation_resumes_to_the_files_of_an_uninterrupted_one(
    recipe, tmp_path, steps
):
    path = str(recipe(steps=steps))
    assert main(["train", path, "-o", str(tmp_path / "whole")]) == 0
    run, mark = tmp_path / "run", tmp_path / "kill"
    mark.touch()
    words = [sys.executable, "-c", KILLED, str(mark), "train", path, "-o", str(run)]
    killed = subprocess.run(words, cwd=REPOSITORY, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (run / "best.pth").exists()
    assert main(["train", "--resume", str(run)]) == 0
    whole, again = (load_checkpoint(f / "best.pth") for f in (tmp_path / "whole", run))
    assert whole.step == again.step
    assert all(torch.equal(t, again.weights[name]) for name, t in whole.weights.items())
    tables = [(f / "validation.csv").read_text() for f in (tmp_path / "whole", run)]
    assert tables[0] == tables[1]


def test_sigterm_saves_and_ends_like_ctrl_c(recipe, tmp_path):
    run = tmp_path / "run"
    path = str(recipe(steps=100000, checkpoint_interval=100000, validation_interval=100000))
    words = [sys.executable, "-m", "yolact_ros.cli.main", "train", path, "-o", str(run)]
    process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    log = run / "losses.csv"
    until = time.monotonic() + 90
    while not (log.is_file() and log.read_text().count("\n") > 1):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    process.terminate()
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130 and "saved" in printed
    assert load_checkpoint(run / "last.pth").step >= 1


def test_a_full_disk_is_reported_and_keeps_earlier_files(recipe, tmp_path):
    run = tmp_path / "run"
    assert main(["train", str(recipe()), "-o", str(run)]) == 0
    before = (run / "last.pth").read_bytes()
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from yolact_ros.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", limited, "train", "--resume", str(run), "--set", "steps=4"]
    ended = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "cannot be written" in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr
    assert (run / "last.pth").read_bytes() == before
    assert not list(run.glob(".*.new-*"))


def test_a_picture_of_twelve_megapixels_and_many_objects_stays_small(tmp_path):
    """Peak memory is measured while one sample is loaded and augmented in its own process."""
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((3000, 4000, 3), np.uint8))
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1) * 200
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1,
         "segmentation": [(circle + (300 + 25 * i, 400 + 18 * i)).ravel().tolist()]}
        for i in range(120)
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "a.jpg", "height": 3000, "width": 4000}]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "x"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    program = (
        "import resource, sys, numpy as np\n"
        "from yolact_ros.datasets.coco import CocoDataset\n"
        "from yolact_ros.train.augment import AugmentConfig, augment\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sample = CocoDataset(sys.argv[1] + '/a.json', sys.argv[1]).load(0)\n"
        "for seed in range(5):\n"
        "    random = np.random.default_rng(seed)\n"
        "    augment(sample, (320, 320), config=AugmentConfig(), random=random)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    grown = subprocess.check_output(words, cwd=REPOSITORY, env={**os.environ})
    assert float(grown) < 250  # megabytes; the masks alone are 1440 at full size
