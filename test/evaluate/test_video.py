"""Clips are evaluated with a model that finds blue pixels, always in the same two boxes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")
pytest.importorskip("onnxruntime")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.config import BackendConfig
from yolact_ros.errors import ConfigError, DatasetError  # noqa: E402
from yolact_ros.evaluate.video import (
    evaluate_video,  # noqa: E402
    read_clips,  # noqa: E402
)
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402

CLASSES = ("cup", "spoon")
HEIGHT, WIDTH, FRAMES = 64, 80, 7


def write_clip(folder):
    """Write a clip of a blue cup in the left half, seen by a static camera."""
    (folder / "images").mkdir(parents=True)
    names = [f"{i:06d}.png" for i in range(FRAMES)]
    document = {"images": [], "annotations": [], "categories": []}
    document["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    for i, name in enumerate(names):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[16:48, 8:32, 0] = 255
        cv2.imwrite(str(folder / "images" / name), image)
        document["images"].append(
            {"id": i + 1, "file_name": name, "height": HEIGHT, "width": WIDTH}
        )
        document["annotations"].append(
            {
                "id": i + 1,
                "image_id": i + 1,
                "category_id": 1,
                "segmentation": [[8, 16, 32, 16, 32, 48, 8, 48]],
                "bbox": [8, 16, 24, 32],
                "area": 24 * 32,
                "iscrowd": 0,
            }
        )
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip")


@pytest.fixture
def segmenter(tiny_video_bundle):
    with Segmenter.open(tiny_video_bundle.folder, backend=BackendConfig(threads=1)) as opened:
        yield opened


def clips_of(*folders):
    return read_clips(folders, images=None, classes=CLASSES)


def test_every_warp_has_a_row_for_each_interval_and_the_full_pass_is_the_same(segmenter, clip):
    rows = evaluate_video(segmenter, clips_of(clip), intervals=(3, 2))
    assert [(row.warp, row.interval) for row in rows] == [
        *(("dis", 1), ("dis", 2), ("dis", 3)),
        *(("none", 1), ("none", 2), ("none", 3)),
    ]
    assert [row.keyframes for row in rows[:3]] == [7, 4, 3]  # of seven frames
    assert {row.frames for row in rows} == {FRAMES}
    assert (rows[0].mask_ap, rows[0].mean_ms) == (rows[3].mask_ap, rows[3].mean_ms)
    assert rows[0].mask_ap_non_key is None and rows[0].non_keyframe_ms is None
    assert rows[0].relative_ms == 1 and rows[0].relative_p50 == 1


def test_a_model_whose_features_have_no_effect_loses_nothing(segmenter, clip):
    rows = evaluate_video(segmenter, clips_of(clip), intervals=(1, 3), warps=("none",))
    full, reused = rows
    assert reused.mask_ap == reused.mask_ap_non_key == reused.full_pass_ap_non_key == full.mask_ap
    assert full.mask_ap50 == pytest.approx(1)
    assert 0 < full.region_similarity == reused.region_similarity <= 1
    mean = (reused.keyframe_ms * 3 + reused.non_keyframe_ms * 4) / 7
    assert reused.mean_ms == pytest.approx(mean)


def test_the_limit_counts_frames_of_each_clip(segmenter, clip, tmp_path):
    other = write_clip(tmp_path / "other")
    rows = evaluate_video(segmenter, clips_of(clip, other), intervals=(3,), limit=4)
    assert rows[0].frames == 8
    assert rows[1].keyframes == 4  # the first and the fourth of each


def test_videos_in_youtube_vis_form_are_clips(tmp_path):
    folder = write_clip(tmp_path / "frames")
    names = [f"{i:06d}.png" for i in range(FRAMES)]
    content = {
        "videos": [
            {"id": n, "file_names": part, "height": HEIGHT, "width": WIDTH}
            for n, part in ((5, names[:3]), (6, names[3:]))
        ],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [],
    }
    path = tmp_path / "videos.json"
    path.write_text(json.dumps(content))
    clips = read_clips([path], images=folder / "images", classes=CLASSES)
    assert [len(clip) for clip in clips] == [3, 4]


def test_detections_are_propagated_with_a_model_for_single_images(tiny_bundle, clip, capsys):
    with Segmenter.open(tiny_bundle.folder, backend=BackendConfig(threads=1)) as segmenter:
        with pytest.raises(ConfigError, match="--propagated-frames works with every model"):
            evaluate_video(segmenter, clips_of(clip), intervals=(5,))
        rows = evaluate_video(segmenter, clips_of(clip), propagated_frames=(0, 1, 2))
    shown = [
        (row.interval, row.propagated_frames, row.keyframes) for row in rows if row.warp == ""
    ]
    assert shown == [(1, 0, 7), (1, 1, 7), (2, 1, 4), (1, 2, 7), (3, 2, 3)]  # seven frames
    assert rows[2].mask_ap == rows[0].mask_ap  # nothing moves
    words = ["evaluate", str(tiny_bundle.folder), "--video", str(clip), "--threads", "1"]
    assert main([*words, "--propagated-frames", "0,1"]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:3]] == [
        ["1", "-", "0"],
        ["2", "-", "1"],
    ]


def test_a_missing_image_is_named(clip):
    (clip / "images" / "000001.png").unlink()
    with pytest.raises(DatasetError, match=r"000001\.png"):
        clips_of(clip)


def test_an_empty_clip_is_reported(clip):
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cup"}]}
    (clip / "instances.json").write_text(json.dumps(empty))
    with pytest.raises(DatasetError, match="no frames"):
        clips_of(clip)


def test_the_command_writes_json_and_prints_a_table(tiny_video_bundle, clip, tmp_path, capsys):
    words = ["evaluate", str(tiny_video_bundle.folder), "--video", str(clip), "--threads", "1"]
    words += ["--intervals", "1,3", "--warp", "dis,none"]
    assert main([*words, "--json", str(tmp_path / "rows.json")]) == 0
    content = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["interval"], row["warp"]) for row in content["rows"]] == [
        *((1, "dis"), (3, "dis"), (1, "none"), (3, "none")),
    ]
    assert content["machine"]["cpu"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["interval", "warp", "propagated", "mask"]
    assert [line.split()[:2] for line in lines[1:4]] == [["1", "-"], ["3", "dis"], ["3", "none"]]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--images", "x"], "Give --annotations and --images, or --video"),
        (["--video", "x", "--annotations", "y"], "--video and --annotations are both given"),
    ],
)
def test_incompatible_arguments_are_refused(words, message, tiny_video_bundle, capsys):
    assert main(["evaluate", str(tiny_video_bundle.folder), *words]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--intervals", "0,5"], ["--warp", "magic"]])
def test_invalid_values_are_refused(words, tiny_video_bundle, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(tiny_video_bundle.folder), "--video", "x", *words])
    assert words[1].split(",")[0] in capsys.readouterr().err


def test_propagated_frames_have_rows_of_their_own(segmenter, clip):
    rows = evaluate_video(
        segmenter, clips_of(clip), intervals=(4,), warps=("none",), propagated_frames=(0, 1, 3)
    )
    assert [(row.interval, row.propagated_frames) for row in rows] == [
        *((1, 0), (4, 0)),
        *((1, 1), (4, 1)),
        *((1, 3), (4, 3)),
    ]
    assert [row.keyframes for row in rows] == [7, 2] * 3
    # The camera stands still, and so do the detections.
    assert {row.mask_ap50 for row in rows} == {rows[0].mask_ap50}
