"""COCO files are read as they occur: polygons, run lengths, crowds, odd ids, broken entries."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

rle = pytest.importorskip("pycocotools.mask")

from yolact_ros.datasets.coco import CocoDataset, tight_box  # noqa: E402
from yolact_ros.datasets.findings import ERROR  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402

SQUARE = [[10, 5, 30, 5, 30, 25, 10, 25]]


def disc_mask():
    mask = np.zeros((40, 60), np.uint8)
    cv2.circle(mask, (45, 20), 8, 1, -1)
    return mask


def annotation(**changes):
    base = {"id": 1, "image_id": 9, "category_id": 44, "segmentation": SQUARE, "iscrowd": 0}
    return {**base, **changes}


@pytest.fixture
def write(tmp_path):
    """Write one 60x40 picture and an annotation file; return their paths."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 7, np.uint8))

    def make(annotations, **changes):
        content = {
            "images": [{"id": 9, "file_name": "a.png", "height": 40, "width": 60}],
            "categories": [{"id": 90, "name": "nut"}, {"id": 44, "name": "bolt"}],
            "annotations": annotations,
            **changes,
        }
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return path, tmp_path

    return make


def test_polygons_run_lengths_and_crowds_become_masks(write):
    encoded = rle.encode(np.asfortranarray(disc_mask()))
    compressed = {"size": [40, 60], "counts": encoded["counts"].decode()}
    crowd = {"size": [40, 60], "counts": [0, 40 * 30, 40 * 30]}  # the left half, by columns
    dataset = CocoDataset(
        *write(
            [
                annotation(),
                annotation(id=2, category_id=90, segmentation=compressed),
                annotation(id=3, segmentation=crowd, iscrowd=1),
            ]
        )
    )
    sample = dataset.load(0)
    assert sample.class_ids.tolist() == [0, 1, 0]
    assert sample.crowd.tolist() == [False, False, True]
    np.testing.assert_allclose(sample.boxes[0], [10, 5, 30, 25], atol=1)
    assert abs(int(sample.masks[0].sum()) - 400) <= 41
    np.testing.assert_array_equal(sample.masks[1], disc_mask())
    assert sample.masks[2][:, :30].all() and not sample.masks[2][:, 30:].any()


def test_classes_follow_category_ids_or_the_requested_names(write):
    files = write([annotation()])
    assert CocoDataset(*files).classes == ("bolt", "nut")
    assert CocoDataset(*files).category_ids == {0: 44, 1: 90}
    chosen = CocoDataset(*files, ("nut", "washer", "bolt"))
    assert chosen.category_ids == {0: 90, 2: 44}
    assert chosen.load(0).class_ids.tolist() == [2]


def test_an_error_lists_the_classes_if_none_of_the_requested_ones_exists(write):
    with pytest.raises(DatasetError, match="bolt"):
        CocoDataset(*write([annotation()]), ("giraffe",))


def test_broken_annotations_are_counted_and_left_out(write):
    dataset = CocoDataset(
        *write(
            [
                annotation(),
                annotation(id=2, image_id=123),
                annotation(id=3, category_id=5),
                annotation(id=4, segmentation=[]),
                annotation(id=5, segmentation=[[1, 2, 3]]),
                "not an object",
            ]
        )
    )
    assert len(dataset.load(0)) == 1
    assert dataset.findings.count(ERROR) == 5


def test_boxes_without_masks_are_instances_only_on_request(write):
    entries = [
        annotation(),
        annotation(id=2, category_id=90, segmentation=[], bbox=[10, 6, 20, 10]),
        annotation(id=3, segmentation=None, bbox=[50, 30, 100, 100]),
        annotation(id=4, segmentation=[], bbox=[1, 2, 3, 4], iscrowd=1),
    ]
    paths = write(entries)
    dataset = CocoDataset(*paths)
    assert dataset.load(0).crowd.tolist() == [False, True, True, True]
    assert dataset.instances == [1, 0]
    dataset = CocoDataset(*paths, learn_boxes=True)
    sample = dataset.load(0)
    assert sample.crowd.tolist() == [False, False, False, True]
    assert sample.box_only.tolist() == [False, True, True, False]
    assert sample.boxes[1:3].tolist() == [[10, 6, 30, 16], [50, 30, 60, 40]]
    assert [int(mask.sum()) for mask in sample.masks[1:3]] == [200, 100]
    assert sum(dataset.instances) == 3


def test_an_image_without_annotations_is_an_empty_sample(write):
    dataset = CocoDataset(*write([]))
    sample = dataset.load(0)
    assert len(sample) == 0
    assert np.asarray(sample.masks).shape == (0, 40, 60)
    assert sample.boxes.shape == (0, 4)
    assert not dataset.has_instances(0)


def test_a_missing_image_is_named_before_a_long_run(write, tmp_path):
    dataset = CocoDataset(*write([annotation()]))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match="a.png"):
        dataset.check_files()
    with pytest.raises(DatasetError, match="a.png"):
        dataset.load(0)


def test_an_image_whose_size_differs_from_its_entry_is_named(write, tmp_path):
    dataset = CocoDataset(*write([annotation()]))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(DatasetError, match="60x40"):
        dataset.load(0)


def test_a_file_that_is_not_a_picture_is_named(write, tmp_path):
    dataset = CocoDataset(*write([annotation()]))
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(DatasetError, match="cannot be decoded"):
        dataset.load(0)


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"images": []}'])
def test_a_file_that_is_not_an_annotation_file_is_reported(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(DatasetError, match="instances.json"):
        CocoDataset(path, tmp_path)


def test_the_tight_box_of_a_mask_by_hand():
    mask = np.zeros((10, 10), np.uint8)
    mask[2:5, 3:9] = 1
    assert tight_box(mask) == (3, 2, 9, 5)
    assert tight_box(np.zeros((10, 10), np.uint8)) == (0, 0, 0, 0)
