"""Polygons, run lengths, videos and unnamed categories become the masks that were drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

rle_masks = pytest.importorskip("pycocotools.mask")
pytest.importorskip("torch")

from yolact_ros.classes import PASCAL_SBD
from yolact_ros.config import FlowConfig
from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.datasets.findings import ERROR
from yolact_ros.datasets.masks import run_lengths, segmentation_fault
from yolact_ros.errors import DatasetError
from yolact_ros.train.augment import resize_sample
from yolact_ros.train.config import TrainConfig
from yolact_ros.train.feature_transform.pairs import PairConfig, VideoPairs
from yolact_ros.variants import TABLETOP_MODEL

SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


def encode(mask):
    rle = rle_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def plain_runs(mask):
    """Compute the column-major runs of zeros and ones by a loop over the pixels."""
    runs, value = [0], 0
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("seed", range(20))
def test_compressed_counts_equal_a_loop_over_the_pixels(seed):
    random = np.random.default_rng(seed)
    mask = (random.random((1 + 7 * seed, 5 + 90 * (seed % 3))) < random.random()).astype(int)
    mask[:, : seed * 3] = 0  # long runs, of more than one digit
    assert run_lengths(encode(mask)["counts"]).tolist() == plain_runs(mask)


def test_counts_that_do_not_fill_the_image_are_a_fault():
    assert segmentation_fault({"size": [10, 10], "counts": [50, 50]}, (10, 10)) is None
    whole = encode(np.eye(10))
    assert segmentation_fault(whole, (10, 10)) is None
    lists = ([5, 5], [200], [-5, 105], ["a"], [1, [2]], [])
    for counts in (*lists, "", "garbage!!", "\x7f", "P" * 5, None):
        fault = segmentation_fault({"size": [10, 10], "counts": counts}, (10, 10))
        assert fault == "with a corrupt run-length mask", counts
    cut = {**whole, "counts": whole["counts"][:-3]}
    assert segmentation_fault(cut, (10, 10)) == "with a corrupt run-length mask"


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        (None, "without a segmentation"),
        ([], "without a usable polygon"),
        ([[1, 2, 3, 4]], "without a usable polygon"),
        ([[1, 2, 3, 4, 5, float("nan")]], "without a usable polygon"),
        ([[1, 2], SQUARE], None),
        ({"counts": [100]}, "with a mask without a size"),
        ({"size": [5, 20], "counts": [100]}, "with a mask of a different size than the image"),
    ],
)
def test_a_segmentation_without_a_mask_has_a_reason(segmentation, fault):
    assert segmentation_fault(segmentation, (10, 10)) == fault


@pytest.fixture
def images(tmp_path):
    for name in ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "one.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 30, 3), np.uint8))
    return tmp_path


def write(folder, content):
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def mask_at(left):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, left : left + 6] = 1
    return mask


@pytest.fixture
def video_json(images):
    """Describe a video in which object 40 moves and object 41 hides, and a video of one frame."""
    size = {"height": 20, "width": 30}
    seen = [encode(mask_at(left)) for left in (0, 4, 8)]
    plain = {"size": [20, 30], "counts": plain_runs(mask_at(20))}
    content = {
        "videos": [
            {"id": 7, "file_names": ["a/0.png", "a/1.png", "a/2.png"], "length": 3, **size},
            {"id": 3, "file_names": ["b/0.png"], "length": 1, **size},
        ],
        "annotations": [
            {"id": 40, "video_id": 7, "category_id": 5, "iscrowd": 0, "segmentations": seen},
            {
                **{"id": 41, "video_id": 7, "category_id": 9, "iscrowd": 0},
                "segmentations": [plain, None, None],
                "bboxes": [[20, 5, 6, 10], None, None],
                "areas": [60, None, None],
            },
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 9, "name": "cat"}],
    }
    return write(images, content)


def test_a_video_is_read_as_frames_with_the_identities_of_objects(images, video_json):
    dataset = CocoDataset(video_json, images)
    assert len(dataset) == 4 and not dataset.findings.count(ERROR)
    first, second = dataset.load(0), dataset.load(1)
    assert first.file_name == "a/0.png"
    assert first.track_ids.tolist() == [40, 41] and second.track_ids.tolist() == [40]
    assert first.class_ids.tolist() == [0, 1]
    np.testing.assert_array_equal(first.masks[1], mask_at(20))
    np.testing.assert_array_equal(second.masks[0], mask_at(4))
    assert second.boxes.tolist() == [[4, 5, 10, 15]]  # no bboxes given: those of the masks
    assert len(dataset.load(3)) == 0 and dataset.load(3).track_ids.tolist() == []
    assert dataset.videos() == [[0, 1, 2], [3]]


def test_identities_follow_their_objects_through_resizing(images, video_json):
    sample = CocoDataset(video_json, images).load(0)
    assert resize_sample(sample, (10, 10)).track_ids.tolist() == [40, 41]


def test_appearances_in_videos_and_frames_that_do_not_exist_are_counted(images, video_json):
    content = json.loads(video_json.read_text())
    content["annotations"][0]["segmentations"].append(encode(mask_at(0)))
    content["annotations"][1]["video_id"] = 99
    dataset = CocoDataset(write(images, content), images)
    assert dataset.findings.counts[(ERROR, "annotation of an unknown image")] == 2


def test_videos_without_annotations_are_images_without_instances(images, video_json):
    content = json.loads(video_json.read_text())
    del content["annotations"]
    dataset = CocoDataset(write(images, content), images)
    assert len(dataset) == 4 and not any(map(dataset.has_instances, range(4)))


def make_pairs(dataset, offsets):
    model = replace(TABLETOP_MODEL, flow=FlowConfig())
    return VideoPairs(dataset, TrainConfig(model, pairs=PairConfig(offsets=offsets)))


def test_a_pair_is_an_earlier_frame_and_a_frame_with_instances(images, video_json):
    pairs = make_pairs(CocoDataset(video_json, images), offsets=(1, 5))
    assert pairs.indices == [1, 2]
    random = np.random.default_rng(0)
    drawn = {(pairs.choose(index, random), index) for index in (1, 2) for _ in range(50)}
    assert drawn == {(0, 1), (0, 2), (1, 2)}
    assert {pairs[position].frame.file_name for position in (0, 1)} == {"a/1.png", "a/2.png"}


def test_the_minimum_offset_is_kept_where_the_video_allows(images, video_json):
    pairs = make_pairs(CocoDataset(video_json, images), offsets=(2, 5))
    random = np.random.default_rng(0)
    drawn = {(pairs.choose(index, random), index) for index in (1, 2) for _ in range(50)}
    assert drawn == {(0, 1), (0, 2)}


def single(folder, **changes):
    image = {"id": 1, "file_name": "one.png", "height": 20, "width": 30}
    annotation = {"id": 1, "image_id": 1, "category_id": 20, "segmentation": [SQUARE]}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 20}]}
    return write(folder, {**content, **changes})


def test_single_images_yield_no_pairs(images):
    dataset = CocoDataset(single(images), images)
    assert dataset.videos() == []
    with pytest.raises(DatasetError, match="YouTube-VIS"):
        make_pairs(dataset, offsets=(1, 5))


def test_categories_without_names_count_from_one_in_the_order_of_the_classes(images):
    dataset = CocoDataset(single(images), images, classes=PASCAL_SBD)
    sample = dataset.load(0)
    assert PASCAL_SBD[sample.class_ids[0]] == "tvmonitor"  # the 20th
    assert np.asarray(sample.masks).sum() == 36
    assert CocoDataset(single(images), images).classes == ("20",)


def test_two_images_of_one_id_are_refused(images):
    twice = [{"id": 1, "file_name": name} for name in ("one.png", "a/0.png")]
    with pytest.raises(DatasetError, match="same id"):
        CocoDataset(single(images, images=twice), images)


def test_entries_that_are_not_annotations_are_counted(images):
    rubbish = [None, 5, {"image_id": [1]}, {"image_id": 1, "category_id": {}}, {"image_id": 2}]
    dataset = CocoDataset(single(images, annotations=rubbish), images)
    errors = {kind: dataset.findings.counts[(s, kind)] for s, kind, _ in dataset.findings.ordered()
              if s == ERROR}  # fmt: skip
    assert errors == {
        "annotation that is not an object": 2,
        "annotation of an unknown image": 2,
        "annotation of an unknown category": 1,
    }
    assert len(dataset.load(0)) == 0
