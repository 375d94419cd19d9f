"""Clips of photographs: masks and motion are exactly those of the picture under the camera."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402
from yolact_ros.evaluate.clips import read_clips  # noqa: E402
from yolact_ros.simulate.stills import (  # noqa: E402
    Photograph,
    camera_path,
    draw_frame,
    write_stills,
)

SIZE = (90, 120)


def photograph() -> Photograph:
    coarse = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    image = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    masks = np.zeros((2, *SIZE), np.uint8)
    masks[0, 20:60, 30:70] = 1
    masks[1, 40:80, 80:110] = 1
    image[masks[0] > 0] = (0, 0, 250)
    image[masks[1] > 0] = (250, 0, 0)
    return Photograph(image, masks, np.array([1, 0]))


def test_the_camera_never_leaves_the_photograph_and_moves_smoothly():
    path = camera_path(SIZE, 200, random=np.random.default_rng(3))
    corners = np.array([[0, 0, 1], [119, 0, 1], [119, 89, 1], [0, 89, 1]])
    places = np.stack([corners @ homography.T for homography in path])[..., :2]
    assert places.min() >= -1
    assert (places.reshape(-1, 2).max(axis=0) <= np.array([120, 90])).all()
    steps = np.abs(np.diff(places, axis=0)).max(axis=(1, 2))
    assert 0.2 < steps.mean() < 5
    assert steps.max() < 6


def test_a_frame_and_its_masks_move_together():
    still = photograph()
    for homography in camera_path(SIZE, 100, random=np.random.default_rng(1))[::25]:
        image, masks = draw_frame(still, homography)
        red = (image[..., 2] > 200) & (image[..., :2] < 60).all(axis=2)
        kernel = np.ones((5, 5), np.uint8)
        inner = cv2.erode(masks[0], kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        outer = cv2.dilate(masks[0], kernel) > 0
        assert inner.any()
        assert red[inner].all()
        assert not red[~outer].any()


def test_the_written_clip_has_tracks_and_the_true_motion(tmp_path):
    folder = tmp_path / "clip"
    write_stills(folder, [photograph(), photograph()], classes=("a", "b"), frames=6, seed=4)
    clips = read_clips([folder], images=None, classes=("a", "b"))
    assert [len(clip) for clip in clips] == [6, 6]
    for clip in clips:
        earlier, later = (clip.dataset.load(clip.indices[i]) for i in (0, 5))
        motion = clip.motion(later, earlier)
        for track in set(later.track_ids) & set(earlier.track_ids):
            now = later.masks[later.track_ids == track][0] > 0
            before = earlier.masks[earlier.track_ids == track][0] > 0
            carried = motion.carry(before)
            both = (carried & now & motion.visible).sum()
            assert both / ((carried | now) & motion.visible).sum() > 0.93


def test_the_same_seed_gives_the_same_clip(tmp_path):
    for name in ("a", "b"):
        write_stills(tmp_path / name, [photograph()], classes=("a", "b"), frames=3, seed=5)
    for path in (tmp_path / "a").rglob("*.j*"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes()


def test_a_photograph_without_instances_and_none_at_all_make_clips(tmp_path):
    empty = Photograph(photograph().image, np.zeros((0, *SIZE), np.uint8), np.zeros(0, np.int64))
    write_stills(tmp_path / "empty", [empty], classes=("a",), frames=2)
    assert json.loads((tmp_path / "empty" / "instances.json").read_text())["annotations"] == []
    write_stills(tmp_path / "none", [], classes=("a",), frames=2)
    with pytest.raises(DatasetError, match="is not empty"):
        write_stills(tmp_path / "empty", [empty], classes=("a",), frames=2)


def test_the_command_makes_clips_of_a_data_set(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), photograph().image)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 90, "width": 120}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "iscrowd": 0,
             "segmentation": [[30, 20, 70, 20, 70, 60, 30, 60]]}
        ],
        "categories": [{"id": 5, "name": "box"}],
    }  # fmt: skip
    (folder / "a.json").write_text(json.dumps(content))
    words = ["simulate", "stills", "-o", str(tmp_path / "out"), "--frames", "3"]
    assert main([*words, "--annotations", str(folder / "a.json"), "--images", str(folder)]) == 0
    assert "1 clips of 3 frames" in capsys.readouterr().out
    (clip,) = read_clips([tmp_path / "out"], images=None, classes=("box",))
    assert all(clip.dataset.has_instances(i) for i in clip.indices)
    assert main(words) == 1
    assert "--annotations and --images" in capsys.readouterr().err
