"""The commands of README and the documentation run as they stand.

All bash blocks of a page run in one shell, in a folder with the files that the page presumes. An
HTML comment directly before a block excludes it, or those of its commands that begin with the
given words, for one of `REASONS`:

    <!-- not run: requires a GPU -->
    <!-- not run: `ros2` requires the command line of ROS 2 -->
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import recorded
from bags import growing_rectangle, write_bag
from preloaded_yolact import shrink_backbone

from yolact_ros.model.weights.checkpoint import initialise_weights, save_checkpoint
from yolact_ros.model.yolact import Yolact
from yolact_ros.variants import TABLETOP_MODEL

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = {
    "installs packages",
    "requires a cluster",
    "requires a GPU",
    "requires the command line of ROS 2",
    "requires the internet",
    "runs until it is interrupted",
    "takes hours",
    "takes minutes",
}
MARKER = r"<!-- not run: (?:`([^`]+)` )?(.+?) -->\n"
BLOCK = re.compile(rf"((?:^{MARKER})*)^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Each is a class of a model that the pages use.
CLASSES = ("mug", "duck", "cup", "spoon", "person", "hammer")
SMALL = {"input_size": (96, 96), "channels": 8, "num_prototypes": 4, "mask_rescoring": False}


def commands(block: str) -> list[str]:
    """Split a block into its commands, each of which may take several lines."""
    lines = block.replace("\\\n", "\\\0").splitlines()
    return [line.replace("\0", "\n") for line in lines if line.strip() and line[0] != "#"]


def split_page(page: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the commands of a page that run, and those that do not with the reason."""
    run, left_out = [], []
    for found in BLOCK.finditer(page.read_text()):
        markers = re.findall(MARKER, found[1])
        for command in commands(found[4]):
            reasons = [why for start, why in markers if command.startswith(start)]
            left_out += [(command, why) for why in reasons[:1]]
            run += [command] if not reasons else []
        for start, _ in markers:
            assert any(c.startswith(start) for c in commands(found[4])), (page.name, start)
    return run, left_out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_left_out_has_a_known_reason(page):
    text = page.read_text()
    assert {why for _, why in split_page(page)[1]} <= REASONS
    used = sum(len(re.findall(MARKER, found[1])) for found in BLOCK.finditer(text))
    assert used == text.count("not run:"), "a marker is not directly before a block"
    assert not re.findall(r"^```(?:sh|shell|console)?\n(?:yolact|ros2|python|pip)", text, re.M)


def test_most_commands_run_and_no_reason_is_left_over():
    pages = [split_page(page) for page in PAGES]
    assert sum(len(run) for run, _ in pages) > 60
    assert {why for _, left_out in pages for _, why in left_out} == REASONS


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Start the server of `yolact`; return the folder with the programs, to be put on the path."""
    folder = tmp_path_factory.mktemp("programs")
    script = ROOT / "test" / "support" / "preloaded_yolact.py"
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, script, folder], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout.readline() == "ready\n"
        (folder / "torchrun").write_text('#!/bin/sh\nshift 3\nexec yolact "$@"\n')  # one process
        (folder / "torchrun").chmod(0o755)
        (folder / "python").symlink_to(sys.executable)
        yield folder
        server.kill()


PICTURES = """data/parts/train data/parts/val data/tools/train data/tools/val data/coco/images
    data/everyday/images data/tabletop/train/images data/tabletop/val/images davis/images
    data/tabletop/test/images clips/1/images pictures calibration recordings/pictures"""
ANNOTATIONS = """data/parts/train data/parts/val data/tools/train data/tools/val davis/instances
    data/tools/instances_val data/everyday/val data/tabletop/train/instances clips/1/instances
    data/tabletop/val/instances data/tabletop/test/instances
    data/coco/annotations/instances_train2017 data/coco/annotations/instances_val2017"""
CHECKPOINTS = "out/parts/best out/tools/last out/everyday/last out/tabletop/last model"
MODELS = {
    "models/tabletop": "tabletop",
    "models/tools": "tools",
    "models/everyday": "everyday",
    "tools_int8": "tools",
    "cache/yolact_ros/models/yolact_plus_resnet50-0123456789ab": "tabletop",
}


@pytest.fixture(scope="module")
def presumed(tmp_path_factory, programs) -> Path:
    """Create the files that the pages presume, under the names that they use."""
    folder = tmp_path_factory.mktemp("presumed")

    def put(name, target):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)

    originals = tmp_path_factory.mktemp("originals")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        shrink_backbone(patch.setattr)
        network = Yolact(replace(TABLETOP_MODEL, classes=CLASSES, **SMALL))
    initialise_weights(network)
    save_checkpoint(originals / "tiny.pth", network.eval())
    write_pictures(originals)
    for name in CHECKPOINTS.split():
        put(f"{name}.pth", originals / "tiny.pth")
    for name in PICTURES.split():
        put(name, originals / "pictures")
    for name in ANNOTATIONS.split():
        put(f"{name}.json", originals / "instances.json")
    for name, model in MODELS.items():
        put(name, ROOT / "models" / model)
    for name in ("config", "scripts"):
        put(name, ROOT / name)
    images = [cv2.imread(str(path)) for path in sorted((originals / "pictures").iterdir())]
    for name in ("models/demo/tabletop.mp4", "video.mp4", "clip.mp4"):
        write_video(folder / name, images)
    topics = "/camera/depth/image", "/camera/camera_info"
    rectangles = growing_rectangle()
    write_bag(folder / "recorded", rectangles, depths=(0, 1, 2, 3, 4, 5), depth_topics=topics)
    write_bag(folder / "recordings" / "ride", rectangles)
    write_exports(folder, originals)
    words = [programs / "yolact", "export", "model.pth", "-o", "models/parts"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    (folder / "docs" / "research").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "research" / "speed.md", folder / "docs" / "research")
    shapes = recorded.official_shapes()["yolact_base"]
    zero = torch.zeros(())  # all entries share it, so the file is small
    for name, shape in shapes.items():
        if "conf_layer" in name or "semantic" in name:
            shape[0] = shape[0] // 27 if "conf_layer" in name else 2
    torch.save({n: zero.expand(s) for n, s in shapes.items()}, folder / "mine.pth")
    return folder


def write_pictures(folder: Path) -> None:
    """Write four images, each with a square of every class, and COCO annotations."""
    (folder / "pictures").mkdir()
    random = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": []}
    for class_id, name in enumerate(CLASSES, start=1):
        content["categories"].append({"id": class_id, "name": name})
    for number in range(4):
        image = random.integers(0, 60, (96, 128, 3), np.uint8)
        file = {"id": number, "file_name": f"{number}.png", "height": 96, "width": 128}
        content["images"].append(file)
        for class_id in range(1, len(CLASSES) + 1):
            left, top = 40 * ((class_id - 1) % 3) + number, 45 * ((class_id - 1) // 3)
            image[top : top + 30, left : left + 30] = 40 * class_id
            corners = [left, top, left + 30, top, left + 30, top + 30, left, top + 30]
            content["annotations"].append(
                {"id": 10 * number + class_id, "image_id": number, "category_id": class_id,
                 "segmentation": [corners], "iscrowd": 0}
            )  # fmt: skip
        assert cv2.imwrite(str(folder / "pictures" / f"{number}.png"), image)
    (folder / "instances.json").write_text(json.dumps(content))


def write_video(path: Path, images: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = images[0].shape[1::-1]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, size)
    for image in images:
        video.write(image)
    video.release()


def write_exports(folder: Path, originals: Path) -> None:
    """Write the same images as labelling tools export them."""
    content = json.loads((originals / "instances.json").read_text())
    shutil.copytree(originals / "pictures", folder / "photographs")
    shutil.copytree(originals / "pictures", folder / "yolo_export" / "images" / "train")
    shutil.copytree(originals / "pictures", folder / "coco_export")
    shutil.copytree(originals / "pictures", folder / "VOC2012" / "JPEGImages")
    shutil.copy(originals / "instances.json", folder / "coco_export")
    names = {"names": list(CLASSES), "train": "images/train"}
    (folder / "yolo_export" / "data.yaml").write_text(json.dumps(names))
    for each in ("SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (folder / "VOC2012" / each).mkdir(parents=True)
    (folder / "yolo_export" / "labels" / "train").mkdir(parents=True)
    for image in content["images"]:
        number, size = image["id"], (image["height"], image["width"])
        shapes, rows, mask = [], [], np.zeros(size, np.uint8)
        for row in (a for a in content["annotations"] if a["image_id"] == number):
            class_id, points = row["category_id"], np.reshape(row["segmentation"], (-1, 2))
            shapes.append({"label": CLASSES[class_id - 1], "points": points.tolist(),
                           "shape_type": "polygon"})  # fmt: skip
            fractions = (points / size[::-1]).reshape(-1)
            rows.append(" ".join(map(str, [class_id - 1, *fractions])))
            cv2.fillPoly(mask, [points], class_id)
        label = {"imagePath": f"{number}.png", "imageHeight": 96, "imageWidth": 128}
        text = json.dumps({**label, "shapes": shapes})
        (folder / "photographs" / f"{number}.json").write_text(text)
        (folder / "yolo_export/labels/train" / f"{number}.txt").write_text("\n".join(rows))
        for each in ("SegmentationClass", "SegmentationObject"):
            cv2.imwrite(str(folder / "VOC2012" / each / f"{number}.png"), mask)
    lists = "".join(f"{image['id']}\n" for image in content["images"])
    (folder / "VOC2012/ImageSets/Segmentation/train.txt").write_text(lists)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_run(page, presumed, programs, tmp_path):
    run, _ = split_page(page)
    if not run:
        return
    folder = tmp_path / "page"
    shutil.copytree(presumed, folder, symlinks=True)
    for path in re.findall(r" -o (\S+)", "\n".join(run)):  # the page writes it itself
        for each in (folder / path, *folder.glob(f"{path}/*")):
            if each.is_symlink() or each.is_file():
                each.unlink()
        shutil.rmtree(folder / path, ignore_errors=True)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    script = "trap 'echo \"FAILED: $BASH_COMMAND\"' ERR\n" + "\n".join(run)
    result = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, timeout=900,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if result.returncode:
        pytest.fail(result.stdout[-3000:], pytrace=False)
