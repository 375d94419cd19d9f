"""The same seed simulates the same bytes, and annotations describe what is visible."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pybullet")
rle = pytest.importorskip("pycocotools.mask")

from yolact_ros.classes import TABLETOP  # noqa: E402
from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402
from yolact_ros.simulate.generate import (  # noqa: E402
    VIEWS_PER_SCENE,
    scene_frames,
    write_clip,
    write_images,
)

SIZE = (96, 128)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "made"
    write_images(folder, seed=7, frames=2 * VIEWS_PER_SCENE + 1, size=SIZE, depth=True)
    return folder


@pytest.fixture(scope="module")
def document(images) -> dict:
    return json.loads((images / "instances.json").read_text())


def test_the_same_seed_yields_the_same_bytes_with_any_number_of_processes(images, tmp_path):
    again = tmp_path / "again"
    write_images(again, seed=7, frames=2 * VIEWS_PER_SCENE + 1, size=SIZE, processes=2, depth=True)
    assert digests(again) == digests(images)


def test_another_seed_yields_other_pictures():
    first = scene_frames(1, 0, size=SIZE)[0].image
    other = scene_frames(2, 0, size=SIZE)[0].image
    assert np.abs(first.astype(int) - other).mean() > 5


def test_every_frame_is_written_once(images, document):
    names = [image["file_name"] for image in document["images"]]
    assert names == [f"{i:06d}.jpg" for i in range(9)]
    assert sorted(path.name for path in (images / "images").iterdir()) == names
    for image in document["images"]:
        picture = cv2.imread(str(images / "images" / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3) == (*SIZE, 3)


def test_annotations_are_consistent(document):
    assert document["annotations"], "nothing was annotated in nine pictures"
    assert [c["name"] for c in document["categories"]] == list(TABLETOP)
    ids = [annotation["id"] for annotation in document["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    for annotation in document["annotations"]:
        mask = rle.decode(annotation["segmentation"])
        assert mask.shape == SIZE
        assert mask.sum() == annotation["area"] > 0
        x, y, width, height = annotation["bbox"]
        assert mask[y : y + height, x : x + width].sum() == annotation["area"]
        assert mask[y].any() and mask[y + height - 1].any()
        assert mask[:, x].any() and mask[:, x + width - 1].any()
        assert 1 <= annotation["category_id"] <= len(TABLETOP)


def test_visible_masks_of_one_picture_do_not_overlap(document):
    total = {image["id"]: np.zeros(SIZE, int) for image in document["images"]}
    for annotation in document["annotations"]:
        total[annotation["image_id"]] += rle.decode(annotation["segmentation"])
    assert max(int(count.max()) for count in total.values()) == 1


def test_depth_and_pose_place_the_table_top_at_height_zero():
    for frame in scene_frames(3, 0, size=SIZE):
        camera = frame.camera
        rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] + 0.5
        x = (columns - camera["cx"]) / camera["fx"] * frame.depth
        y = (rows - camera["cy"]) / camera["fy"] * frame.depth
        points = np.stack([x, y, frame.depth, np.ones_like(x)], axis=-1)
        world = points @ np.array(camera["camera_to_world"]).T
        near = (np.abs(world[..., :2]) < 0.45).all(axis=-1) & (world[..., 2] < 0.5)
        heights = world[..., 2][near]
        assert near.any()
        # Most of what lies over the table is the table itself; nothing is far below it.
        assert abs(np.median(heights)) < 0.02
        assert heights.min() > -0.03


def test_a_clip_keeps_its_objects_and_writes_a_readable_video(tmp_path):
    folder = tmp_path / "clip"
    write_clip(folder, seed=1, frames=5, size=SIZE, fps=10)
    document = json.loads((folder / "instances.json").read_text())
    video = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert [image["frame"] for image in document["images"]] == list(range(5))
    assert {image["video_id"] for image in document["images"]} == {1}
    classes_of_track: dict[int, set[int]] = {}
    for annotation in document["annotations"]:
        classes_of_track.setdefault(annotation["track_id"], set()).add(annotation["category_id"])
    assert classes_of_track
    assert all(len(classes) == 1 for classes in classes_of_track.values())
    assert len(json.loads((folder / "cameras.json").read_text())) == 5
    depth = cv2.imread(str(folder / "depth" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16 and depth.shape == SIZE and depth.max() > 0


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DatasetError, match="not empty"):
        write_images(tmp_path, seed=0, frames=1, size=SIZE)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_the_command_line_writes_images(tmp_path, capsys):
    folder = tmp_path / "made"
    words = "simulate images --seed 3 --frames 2 --size 64x48 -o".split()
    assert main([*words, str(folder)]) == 0
    assert cv2.imread(str(folder / "images" / "000001.jpg")).shape == (48, 64, 3)
    assert str(folder) in capsys.readouterr().out


@pytest.mark.parametrize("size", ["640", "0x10", "big"])
def test_an_invalid_size_is_refused(size, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["simulate", "images", "--size", size, "-o", str(tmp_path)])
    assert "640x480" in capsys.readouterr().err
