"""Every object of another program's data set is imported with the mask that was drawn."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")
yaml = pytest.importorskip("yaml")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.datasets.coco import CocoDataset  # noqa: E402
from yolact_ros.datasets.findings import ERROR, Findings  # noqa: E402
from yolact_ros.datasets.importers.labelme import read_shapes  # noqa: E402
from yolact_ros.datasets.importers.voc import (  # noqa: E402
    find_objects,
    palette,
    read_colours,
    read_numbers,
)
from yolact_ros.datasets.importers.yolo import read_label  # noqa: E402

HEIGHT, WIDTH = 60, 80


def save(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8) if image is None else image
    assert cv2.imwrite(str(path), image)


def masks_of(folder, split="train"):
    dataset = CocoDataset(folder / f"{split}.json", folder / split)
    sample = dataset.load(0)
    return dataset.classes, sample.class_ids.tolist(), np.asarray(sample.masks)


@pytest.fixture
def yolo(tmp_path):
    root = tmp_path / "yolo"
    for split in ("train", "valid"):
        save(root / split / "images" / "a.jpg")
    label = root / "train" / "labels" / "a.txt"
    label.parent.mkdir()
    label.write_text(
        "1 0.25 0.5 0.5 0.5 0.5 0.75 0.25 0.75\n0 0.5 0.5 0.1 0.1\n7 0 0 1 0 1 1\nx\n"
    )
    description = {"names": ["bolt", "nut"], "train": "../train/images", "val": "../valid/images"}
    (root / "data.yaml").write_text(yaml.safe_dump(description))
    return root


def test_a_yolo_data_set_keeps_its_polygons_and_counts_the_rest(yolo, tmp_path, capsys):
    out = tmp_path / "coco"
    assert main(["import-dataset", "yolo", str(yolo), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    for reason in ("box without a mask, neither", "unknown class", "row that is not numbers"):
        assert reason in printed
    assert "1 images, 1 instances" in printed
    classes, ids, masks = masks_of(out)
    assert classes == ("bolt", "nut")
    assert ids == [1, 0]  # the box among them is a crowd
    assert json.loads((out / "train.json").read_text())["annotations"][1]["iscrowd"] == 1
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[30:45, 20:40] = 1
    np.testing.assert_array_equal(masks[0], expected)
    assert (out / "train" / "a.jpg").is_symlink()
    assert masks_of(out, "val")[1] == []  # an image without a label file has nothing on it


def test_images_are_copied_on_request(yolo, tmp_path):
    out = tmp_path / "coco"
    assert main(["import-dataset", "yolo", str(yolo), "-o", str(out), "--copy"]) == 0
    assert not (out / "train" / "a.jpg").is_symlink()
    assert (out / "train" / "a.jpg").read_bytes() == (yolo / "train/images/a.jpg").read_bytes()


def test_a_label_file_without_rows_has_no_instance():
    findings = Findings()
    assert read_label(["", " "], {0: "a"}, findings, name="a.txt") == []
    assert not findings.counts


def test_labelme_shapes_become_polygons_and_groups_one_instance(tmp_path):
    source, out = tmp_path / "labelme", tmp_path / "coco"
    save(source / "a.jpg")
    shapes = [
        {"label": "cup", "points": [[10, 10], [30, 20]], "shape_type": "rectangle"},
        {"label": "cup", "points": [[50, 10], [60, 10], [60, 20], [50, 20]], "group_id": 3},
        {"label": "cup", "points": [[70, 10], [75, 10], [75, 20], [70, 20]], "group_id": 3},
        {"label": "ball", "points": [[40, 40], [40, 50]], "shape_type": "circle"},
        {"label": "cup", "points": [[1, 1], [5, 5]], "shape_type": "line"},
    ]
    (source / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.jpg"}))
    assert main(["import-dataset", "labelme", str(source), "-o", str(out)]) == 0
    classes, ids, masks = masks_of(out)
    assert classes == ("ball", "cup")
    assert sorted(ids) == [0, 1, 1]
    by_area = {int(mask.sum()): mask for mask in masks}
    assert {200, 150} <= set(by_area)  # the rectangle, and both parts of the group
    (ball,) = [m for m, i in zip(masks, ids, strict=True) if i == 0]
    assert ball.sum() == pytest.approx(np.pi * 100, rel=0.03)


def test_odd_shapes_are_counted():
    findings = Findings()
    odd = [{"label": "a", "points": [[1, 2]]}, {"points": []}, "x", {"label": "b", "points": "y"}]
    assert not read_shapes(odd, (10, 10), findings, name="a")
    assert [findings.counts[key] for key in findings.places] == [1, 3]
    assert read_shapes([], (10, 10), Findings(), name="a") == []


def test_labelme_images_are_split_by_their_names(tmp_path):
    source, out = tmp_path / "labelme", tmp_path / "coco"
    for i in range(40):
        save(source / f"{i}.jpg")
        (source / f"{i}.json").write_text(json.dumps({"shapes": [], "imagePath": f"{i}.jpg"}))
    words = ["import-dataset", "labelme", str(source), "-o", str(out), "--validation", "0.25"]
    assert main(words) == 0
    names = {
        split: {i["file_name"] for i in json.loads((out / f"{split}.json").read_text())["images"]}
        for split in ("train", "val")
    }
    assert len(names["train"]) + len(names["val"]) == 40
    assert not names["train"] & names["val"]
    assert 3 <= len(names["val"]) <= 18


def test_the_palette_is_pascals():
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        15: (192, 128, 128),
        255: (224, 224, 192),
    }
    for number, rgb in known.items():
        assert tuple(palette()[number][::-1]) == rgb


def test_a_pascal_data_set_gives_each_object_its_class(tmp_path):
    source, out = tmp_path / "voc", tmp_path / "coco"
    save(source / "JPEGImages" / "a.jpg")
    (source / "ImageSets" / "Segmentation").mkdir(parents=True)
    (source / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    classes, objects = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    classes[10:20, 10:30] = 12  # a dog, and its rim
    objects[10:20, 10:30] = 1
    classes[10, 10:30] = objects[10, 10:30] = 255
    classes[40:50, 40:60], objects[40:50, 40:60] = 15, 2
    save(source / "SegmentationClass" / "a.png", palette()[classes])
    save(source / "SegmentationObject" / "a.png", palette()[objects])
    assert main(["import-dataset", "voc", str(source), "-o", str(out)]) == 0
    names, ids, masks = masks_of(out)
    assert [names[i] for i in ids] == ["dog", "person"]
    np.testing.assert_array_equal(masks[0], objects == 1)
    np.testing.assert_array_equal(masks[1], objects == 2)
    grey = tmp_path / "grey.png"
    save(grey, classes)
    np.testing.assert_array_equal(read_numbers(read_colours(grey)), classes)


def test_objects_without_a_class_are_counted():
    objects, nothing, findings = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8), Findings()
    assert find_objects(nothing, objects, ("a",), None, findings, name="a") == []
    assert findings.counts == {(ERROR, "annotation of an unknown class"): 1}
    assert find_objects(nothing, nothing, ("a",), None, Findings(), name="a") == []


@pytest.mark.parametrize("format_", ["coco", "yolo", "labelme", "voc"])
def test_an_empty_folder_is_refused_with_what_was_expected(format_, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "coco"
    assert main(["import-dataset", format_, str(tmp_path / "empty"), "-o", str(out)]) == 1
    assert "empty" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_with_other_files_is_left_alone(yolo, tmp_path, capsys):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "mine.txt").write_text("mine")
    assert main(["import-dataset", "yolo", str(yolo), "-o", str(tmp_path / "coco")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "coco").iterdir()] == ["mine.txt"]
