"""Every form of a value is read, and nothing is dropped without being counted."""

from __future__ import annotations

import json
import multiprocessing
import operator
import random
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np
import pytest

rle_masks = pytest.importorskip("pycocotools.mask")
pytest.importorskip("hypothesis")

from hypothesis import given, settings, strategies  # noqa: E402
from PIL import Image  # noqa: E402

from yolact_ros.datasets.annotations import read_annotation_file  # noqa: E402
from yolact_ros.datasets.check import check_split  # noqa: E402
from yolact_ros.datasets.coco import CocoDataset, likely_name  # noqa: E402
from yolact_ros.datasets.files import flag, whole_number  # noqa: E402
from yolact_ros.datasets.findings import ERROR, NOTE, WARNING  # noqa: E402
from yolact_ros.datasets.masks import crop_mask, read_segmentation, segmentation_rle  # noqa: E402
from yolact_ros.datasets.records import SharedRecords  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402

SQUARE = [[10, 10, 40, 10, 40, 30, 10, 30]]


def entry(number=1, **changes):
    base = {"id": number, "image_id": 1, "category_id": 1, "segmentation": SQUARE, "iscrowd": 0}
    return {**base, **changes}


@pytest.fixture
def write(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 80, 3), 90, np.uint8))

    def make(*annotations, images=None, categories=None):
        content = {
            "images": images or [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}],
            "annotations": list(annotations),
            "categories": categories or [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}],
        }
        (tmp_path / "a.json").write_text(json.dumps(content))
        return tmp_path / "a.json", tmp_path

    return make


def kinds(findings):
    return {(severity, kind): findings.counts[(severity, kind)]
            for severity, kind, _ in findings.ordered()}  # fmt: skip


def test_ids_are_the_same_as_numbers_text_and_floats(write):
    annotations = [entry(1, image_id="1", category_id=1.0), entry("2", category_id="1")]
    dataset = CocoDataset(*write(*annotations, categories=[{"id": "1", "name": "bolt"}]))
    assert dataset.instances == [2]
    assert not dataset.findings.counts


def test_ids_that_are_names_belong_to_their_images(write, tmp_path):
    cv2.imwrite(str(tmp_path / "b.png"), np.full((60, 80, 3), 90, np.uint8))
    images = [{"id": f"img_{n}", "file_name": f"{n}.png", "height": 60, "width": 80} for n in "ba"]
    dataset = CocoDataset(*write(entry(image_id="img_a"), images=images))
    assert [len(dataset.load(i)) for i in range(2)] == [0, 1]
    assert dataset.load(1).file_name == "a.png"


@pytest.mark.parametrize(
    ("stated", "meant"),
    [(0, False), ("0", False), (0.0, False), (None, False), ("false", False), (1, True),
     ("1", True), (True, True), ("True", True)],
)  # fmt: skip
def test_iscrowd_is_read_in_every_form(write, stated, meant):
    dataset = CocoDataset(*write(entry(iscrowd=stated)))
    assert dataset.load(0).crowd.tolist() == [meant]
    assert dataset.findings.count(NOTE) == int(meant)


def test_a_meaningless_iscrowd_is_an_error(write):
    assert CocoDataset(*write(entry(), entry(2, iscrowd="perhaps"))).findings.count(ERROR) == 1


def test_whole_numbers_and_flags_by_hand():
    assert [whole_number(v) for v in (7, 7.0, "7", " 7.0 ", True, 7.5, "x", None, 1e300)] == (
        [7, 7, 7, 7] + [None] * 5
    )
    assert flag("maybe") is None and flag([]) is None


def test_categories_with_the_same_name_are_one_class_and_reported(write):
    categories = [{"id": 0, "name": "bolt"}, {"id": 1, "name": "bolt "}, {"id": 2, "name": "Bolt"}]
    dataset = CocoDataset(*write(entry(), entry(2, category_id=0), categories=categories))
    assert dataset.classes == ("bolt", "Bolt") and dataset.instances == [2, 0]
    assert kinds(dataset.findings) == {
        (WARNING, "categories with the same name, merged"): 1,
        (WARNING, "categories whose names differ only in case"): 1,
        (WARNING, "class without an instance"): 1,
    }


def test_one_id_for_two_names_is_refused(write):
    categories = [{"id": 1, "name": "bolt"}, {"id": 1, "name": "nut"}]
    with pytest.raises(DatasetError, match="both 'bolt' and 'nut'"):
        CocoDataset(*write(entry(), categories=categories))


def test_a_box_of_two_corners_is_replaced_by_the_box_of_its_mask(write):
    corners = [20, 15, 60, 45]  # x1 y1 x2 y2
    polygon = [[20, 15, 60, 15, 60, 45, 20, 45]]
    dataset = CocoDataset(*write(entry(bbox=corners, segmentation=polygon)))
    assert dataset.load(0).boxes.tolist() == [corners]
    assert kinds(dataset.findings)[(WARNING, "box that does not match its mask")] == 1
    assert any("x1, y1, x2, y2" in kind for _, kind in dataset.findings.places)


def test_a_box_without_a_mask_is_kept_separately_and_counted(write):
    boxes = [entry(i, segmentation=s, bbox=[5, 6, 20, 10]) for i, s in enumerate(([], None), 1)]
    dataset = CocoDataset(*write(*boxes, entry(3)))
    sample = dataset.load(0)
    assert sample.box_only.tolist() == [True, True, False]
    assert sample.crowd.tolist() == [True, True, False]
    assert sample.boxes[0].tolist() == [5, 6, 25, 16]
    assert (
        kinds(dataset.findings)[
            (NOTE, "box without a mask, which counts only with training.learn_boxes")
        ]
        == 2
    )


def exif_picture(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[10:30, 10:40] = 255  # the square, on the pixels as they are stored
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_rotated_to_the_size_of_its_annotations(write, tmp_path, orientation):
    exif_picture(tmp_path / "a.jpg", orientation)
    images = [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}]
    path, folder = write(entry(), images=images)
    report = check_split(path, folder)
    named = [p for _, _, places in report.findings.ordered() for p in places if "EXIF" in p]
    assert bool(named) == (orientation > 1)
    if orientation in (1, 5, 6, 7, 8):  # 2 to 4 keep the size; only the warning can help
        sample = CocoDataset(path, folder).load(0)
        assert sample.image[np.asarray(sample.masks)[0] == 1].mean() > 240
    if orientation >= 5:  # the same picture, annotated as a viewer shows it
        turned = [{"id": 1, "file_name": "a.jpg", "height": 80, "width": 60}]
        assert CocoDataset(*write(images=turned)).load(0).image.shape == (80, 60, 3)


@pytest.mark.parametrize(
    ("name", "there"),
    [("images\\a.png", True), ("C:\\data\\a.png", True), ("/data/upload/1/0123abcd-a.png", True),
     ("images/train/A.PNG", True), ("https://host/x/a.png?v=1", True), ("b.png", False),
     ("a" * 300 + ".png", False), ("/data/local-files/?d=set/a.png", True)],
)  # fmt: skip
def test_paths_of_other_machines_lead_to_the_picture(write, name, there):
    images = [{"id": 1, "file_name": name, "height": 60, "width": 80}]
    path, folder = write(entry(), images=images)
    dataset = CocoDataset(path, folder)
    if there:
        assert len(dataset.load(0)) == 1
        dataset.check_files()
    else:
        with pytest.raises(DatasetError, match="missing"):
            dataset.check_files()


def test_the_choice_between_two_pictures_of_one_name_is_not_guessed(write, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "c.png"), np.zeros((60, 80, 3), np.uint8))
    images = [{"id": 1, "file_name": "z/c.png", "height": 60, "width": 80}]
    with pytest.raises(DatasetError, match="missing"):
        CocoDataset(*write(images=images)).load(0)


@pytest.mark.parametrize("corner", [1e7, 1e8, -1e9, 3e9, 1e18, 1e300, 10**400])
def test_a_far_corner_is_an_error_and_not_a_crash(write, corner):
    path, folder = write(entry(), entry(2, segmentation=[[0, 0, corner, 0, corner, corner]]))
    dataset = CocoDataset(path, folder)
    assert dataset.findings.count(ERROR) == 1 and len(dataset.load(0)) == 1


def test_an_endless_outline_is_an_error(write):
    zigzag = [value for i in range(30000) for value in (0, 60 * (i % 2))]
    dataset = CocoDataset(*write(entry(segmentation=[zigzag])))
    assert "outline" in next(iter(dataset.findings.places))[1]


@pytest.mark.parametrize("counts", [5_000_000_000, [5_000_000_000], 1e308, [[1], [2]], {"a": 1}])
def test_invalid_run_lengths_are_an_error(write, counts):
    segmentation = {"size": [60, 80], "counts": counts}
    assert CocoDataset(*write(entry(segmentation=segmentation))).findings.count(ERROR) == 1


@pytest.mark.parametrize("size", [10**9, "1e9", -5, [1], True])
def test_an_invalid_size_is_replaced_by_that_of_the_file(write, size):
    images = [{"id": 1, "file_name": "a.png", "height": size, "width": 10**9}]
    dataset = CocoDataset(*write(entry(), images=images))
    assert len(dataset.load(0)) == 1 and dataset.findings.count(WARNING)


def test_deep_nesting_pipes_and_huge_files_are_reported(tmp_path):
    import os

    deep, pipe, sparse = (tmp_path / name for name in ("deep.json", "pipe.json", "sparse.json"))
    deep.write_text("[" * 200000)
    os.mkfifo(pipe)
    with sparse.open("wb") as file:
        file.truncate(30 * 2**30)
    for path, message in ((deep, "nested"), (pipe, "regular file"), (sparse, "bytes"),
                        (tmp_path / ("x" * 300), "cannot be read")):  # fmt: skip
        with pytest.raises(DatasetError, match=message):
            read_annotation_file(path, tmp_path)


def test_one_polygon_without_its_list_and_pairs_are_read():
    square = SQUARE[0]
    pairs = [square[i : i + 2] for i in range(0, 8, 2)]
    for form in (square, pairs, SQUARE):
        assert read_segmentation(form, (60, 80)).segmentation == SQUARE


POINT = strategies.floats(-100, 200, width=32)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(strategies.lists(POINT, min_size=6, max_size=24).filter(lambda p: len(p) % 2 == 0))
def test_a_mask_in_its_box_is_that_of_the_whole_image(points):
    size = (60, 80)
    if isinstance(read_segmentation([points], size), str):
        return
    (x, y), crop = crop_mask([points], size)
    whole = rle_masks.decode(segmentation_rle([points], *size))
    mine = np.zeros(size, np.uint8)
    mine[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    np.testing.assert_array_equal(mine, whole)


ODD = [None, 1, -1, "7", 1e300, float("nan"), 10**20, [], {}, [[1]], "x", True, ["a"], "a" * 300]


def test_four_hundred_random_files_are_reported_or_counted(write, tmp_path):
    """The check and training agree on files in which any value is replaced by an odd one."""
    draw = random.Random(5)
    for _ in range(400):
        image = {"id": 1, "file_name": "a.png", "height": 60, "width": 80}
        content = {
            "images": [image],
            "annotations": [entry(bbox=[10, 10, 30, 20], area=600, track_id=1), entry(2)],
            "categories": [{"id": 1, "name": "bolt"}],
        }
        for _ in range(draw.randint(1, 3)):
            place = draw.choice([content, image, content["categories"]])
            place = draw.choice([place, *content.get("annotations", [])]) if place else content
            if isinstance(place, dict):
                place[draw.choice(list(place))] = draw.choice(ODD)
            content.setdefault("annotations", [])
            content["annotations"] = content["annotations"] or []
            if not isinstance(content["annotations"], list):
                break
            content["annotations"] = [a for a in content["annotations"] if isinstance(a, dict)]
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content))
        try:
            dataset = CocoDataset(path, tmp_path)
            report = check_split(path, tmp_path)
        except DatasetError:
            continue
        assert sum(dataset.instances) == sum(report.instances.values())
        for index in range(len(dataset)):
            try:
                dataset.load(index)
            except DatasetError:
                pass


def test_the_likely_name_ignores_case_spaces_and_punctuation():
    assert likely_name("screw-driver", ["screwdriver", "screw"]) == "screwdriver"
    assert likely_name("Nut", ["bolt", "nut"]) == "nut"
    assert likely_name("unicorn", ["bolt", "nut"]) is None
    assert likely_name("x", []) is None


def test_another_process_reads_the_same_records():
    records = SharedRecords(iter([{"a": [1.5]}, "two", [3]]))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(operator.getitem, records, 2).result(timeout=60) == [3]
    assert len(SharedRecords([])) == 0
    with pytest.raises(IndexError):
        records[3]
