"""The shell commands of the pages run, in the order in which a reader types them.

Each page is one shell session in a folder of its own, with the files that its text presumes: a
small data set, a checkpoint, a bundle, pictures, a video, a bag. `yolact` is the real program, and
only its long runs are shortened (`SHORTER`). Lines that call a program of `ELSEWHERE` are left
out, and so is a block below a comment `<!-- not run: REASON -->` with a reason of `REASONS`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bags import growing_rectangle, write_bag

from yolact_ros.cli.main import main

pytest.importorskip("torch")
pytest.importorskip("pybullet")

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- not run: (.*?) -->\n)?^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)

REASONS = {
    "installs packages",
    "needs a cluster",
    "needs a display",
    "needs a GPU",
    "needs the internet",
    "needs the data that was measured",
    "part of a command",
    "runs until it is stopped",
    "takes hours",
}
# Programs that install, build, or need a running ROS 2.
ELSEWHERE = {"make", "pip", "ros2", "tensorboard"}
# The shortest run of a verb: later options override earlier ones.
SHORTER = {
    "benchmark": "--frames 1",
    "quantize": "--count 2 --float-layers",
    "simulate": "--frames 6",
    "train": "--set steps=2 --set batch_size=2 --set workers=0 --set precision=float32 "
    "--set schedule.warm_up_steps=1 --set validation_images=1",
}
# The verbs that refuse a folder of an earlier page or of an alternative get an empty one.
OUTPUT = re.compile(r"yolact (?:(?:train|import-dataset) .*-o|bag recorded) (\S+)")
CLASSES = ("bolt", "nut")


def shell_lines(page: Path) -> list[str]:
    """Return the lines of a page that are to be run, with continuation lines joined."""
    lines = []
    for reason, block in BLOCK.findall(page.read_text()):
        if reason:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] not in ELSEWHERE and "ros2 " not in line:
                lines.append(line)
    return lines


@pytest.fixture(scope="module")
def world(tmp_path_factory, monkeypatch_module) -> Path:
    """Create the files that the pages presume."""
    folder = tmp_path_factory.mktemp("world")
    monkeypatch_module.chdir(folder)
    for name in ("config", "models/tabletop", "models/tools", "models/everyday", "models/demo"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(ROOT / name)
    random = np.random.default_rng(3)
    for number in range(6):
        image = random.integers(0, 90, (96, 128, 3), np.uint8)
        shapes = []
        for label, x in zip(CLASSES, (10 + number, 70), strict=True):
            cv2.rectangle(image, (x, 30), (x + 40, 70), (240, 200, 60 * len(label)), -1)
            corners = [[x, 30], [x + 40, 30], [x + 40, 70], [x, 70]]
            shapes.append({"label": label, "shape_type": "polygon", "points": corners})
        for place in ("photographs", "pictures", "calibration"):
            Path(place).mkdir(exist_ok=True)
            assert cv2.imwrite(f"{place}/{number}.png", image)
        labels = {"imagePath": f"{number}.png", "imageWidth": 128, "imageHeight": 96}
        Path(f"photographs/{number}.json").write_text(json.dumps({**labels, "shapes": shapes}))
    write_video(Path("video.mp4"))
    shutil.copy("video.mp4", "clip.mp4")
    write_bag(
        Path("recorded"),
        growing_rectangle(),
        depths=tuple(range(6)),
        depth_topics=("/camera/depth/image", "/camera/camera_info"),
    )
    run("import-dataset labelme photographs -o data/parts --validation 0.2")
    write_exports()
    run(f"train --data data/parts -o out/parts {SHORTER['train']}")
    run("export out/parts/best.pth -o models/parts --half-weights")
    for name in ("tools", "everyday"):
        shutil.copytree("out/parts", f"out/{name}")
    shutil.copy("out/parts/last.pth", "model.pth")
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def run(words: str) -> None:
    assert main(shlex.split(words)) == 0, words


def write_exports() -> None:
    """Write the labels of data/parts as YOLO and COCO exports in one folder, and as Pascal VOC."""
    coco = json.loads(Path("data/parts/train.json").read_text())
    for folder in ("export/images", "export/labels", "export/train"):
        Path(folder).mkdir(parents=True)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets"):
        Path("VOC2012", folder).mkdir(parents=True)
    lists = Path("VOC2012/ImageSets/Segmentation")
    lists.mkdir()
    stems = [Path(image["file_name"]).stem for image in coco["images"]]
    (lists / "train.txt").write_text("\n".join(stems[:-1]))
    (lists / "val.txt").write_text(stems[-1])
    Path("export/data.yaml").write_text(f"names: {list(CLASSES)}\ntrain: images\nval: images\n")
    Path("export/train.json").write_text(json.dumps(coco))
    for image in coco["images"]:
        picture, name = cv2.imread(f"data/parts/train/{image['file_name']}"), image["file_name"]
        stem = Path(name).stem
        cv2.imwrite(f"export/images/{name}", picture)
        cv2.imwrite(f"VOC2012/JPEGImages/{stem}.jpg", picture)
        rows = [row for row in coco["annotations"] if row["image_id"] == image["id"]]
        objects = np.zeros(picture.shape[:2], np.uint8)
        classes = objects.copy()
        lines = []
        for number, row in enumerate(rows, 1):
            x, y, width, height = map(int, row["bbox"])
            objects[y : y + height, x : x + width] = number
            classes[y : y + height, x : x + width] = row["category_id"]
            corners = np.reshape(row["segmentation"][0], (-1, 2)) / (128, 96)
            lines.append(f"{row['category_id'] - 1} {' '.join(map(str, corners.reshape(-1)))}")
        Path(f"export/labels/{stem}.txt").write_text("\n".join(lines))
        cv2.imwrite(f"VOC2012/SegmentationClass/{stem}.png", classes)
        cv2.imwrite(f"VOC2012/SegmentationObject/{stem}.png", objects)


def write_video(path: Path) -> None:
    reader = cv2.VideoCapture(str(ROOT / "models" / "demo" / "tabletop.mp4"))
    images = [reader.read()[1] for _ in range(4)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20, (640, 480))
    for image in images:
        writer.write(cv2.resize(image, (640, 480)))
    writer.release()


@pytest.fixture
def programs(tmp_path) -> Path:
    """Create a folder with a `yolact` that shortens long runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    cases = "".join(f'{verb}) set -- "$@" {words} ;;\n' for verb, words in SHORTER.items())
    program = f'exec {sys.executable} -m yolact_ros.cli.main "$@"'
    (folder / "yolact").write_text(f'#!/bin/bash\ncase "$1" in\n{cases}esac\n{program}\n')
    (folder / "yolact").chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "page", list(filter(shell_lines, PAGES)), ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_shell_commands_of_a_page_run(page, world, programs, tmp_path):
    lines = shell_lines(page)
    folder = tmp_path / "reader"
    shutil.copytree(world, folder, symlinks=True, copy_function=os.link)
    script = ""
    for line in lines:
        script += "".join(f"rm -rf {word}\n" for word in OUTPUT.findall(line))
        script += f"echo {shlex.quote('$ ' + line)}\n{line}\n"
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=env, text=True, capture_output=True
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


def test_blocks_that_do_not_run_say_why_in_known_words():
    text = "\n".join(page.read_text() for page in PAGES)
    blocks = [reason for reason, _ in BLOCK.findall(text)]
    reasons = [reason for reason in blocks if reason]
    assert set(reasons) == REASONS
    assert len(reasons) == text.count("<!-- not run")  # each stands directly before its block
    assert sum(len(shell_lines(page)) for page in PAGES) >= 40
