"""YOLO exports are imported completely, and their quirks are reported."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("pycocotools.mask")

from exports import FRACTIONS, check_square, picture, text  # noqa: E402


def test_roboflow_names_folders_beside_the_yaml_and_a_missing_split(tmp_path, bring):
    root = tmp_path / "robo"
    for split in ("train", "valid"):
        picture(root / split / "images" / "a_jpg.rf.1f2e.jpg")
        text(root / split / "labels" / "a_jpg.rf.1f2e.txt", f"0 {FRACTIONS} \n")
    text(root / "data.yaml", "train: ../train/images\nval: ../valid/images\n"
         "test: ../test/images\nnc: 1\nnames: [bolt]\n")  # fmt: skip
    status, printed, split = bring("yolo", root)
    assert status == 0 and "split without images" in printed
    check_square(split("train"))
    check_square(split("val"))


def test_ultralytics_has_a_yaml_of_any_name_with_a_root_relative_to_another_folder(
    tmp_path, bring
):
    root = tmp_path / "datasets" / "parts"
    picture(root / "images" / "train" / "cam" / "images" / "a.jpg")
    text(root / "labels" / "train" / "cam" / "images" / "a.txt", f"0 {FRACTIONS}")
    text(root / "parts-seg.yaml", "path: ../datasets/parts\ntrain: images/train\nval:\n"
         "names:\n  0: bolt\n")  # fmt: skip
    status, _, split = bring("yolo", root)
    assert status == 0
    check_square(split())


@pytest.mark.parametrize(
    "line",
    ["./images/train/a.jpg", "data/images/train/a.jpg", "C:\\x\\images\\train\\a.jpg"],
)
def test_lists_of_images_of_cvat_and_ultralytics(tmp_path, bring, line):
    picture(tmp_path / "set" / "images" / "train" / "a.jpg")
    text(tmp_path / "set" / "labels" / "train" / "a.txt", f"0 {FRACTIONS}")
    text(tmp_path / "set" / "train.txt", f"{line}\nimages/train/gone.jpg\n")
    text(tmp_path / "set" / "data.yaml", "path: .\ntrain: train.txt\nnames:\n  0: bolt\n")
    status, printed, split = bring("yolo", tmp_path / "set")
    assert status == 0 and "missing image" in printed
    check_square(split())


def test_label_studio_has_a_list_of_classes_and_no_yaml(tmp_path, bring):
    picture(tmp_path / "set" / "images" / "0123abcd-a.jpg")
    text(tmp_path / "set" / "labels" / "0123abcd-a.txt", f"1 {FRACTIONS}")
    text(tmp_path / "set" / "classes.txt", "nut\nbolt\n")
    status, _, split = bring("yolo", tmp_path / "set")
    assert status == 0
    check_square(split())


def yolo_set(root, rows, names="{0: bolt, 2: nut, 5: gear}"):
    picture(root / "images" / "train" / "a.jpg")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_bytes(rows.encode())
    text(root / "data.yaml", f"train: images/train\nnames: {names}\n")
    return root


def test_names_are_looked_up_by_their_number(tmp_path, bring):
    rows = f"\ufeff0 {FRACTIONS}\n2 {FRACTIONS}\n5 {FRACTIONS}\n3 {FRACTIONS}\n"
    status, printed, split = bring("yolo", yolo_set(tmp_path / "y", rows))
    assert status == 0 and "unknown class" in printed
    check_square(split(), classes=("bolt", "nut", "gear"))


@pytest.mark.parametrize("names", ["{a: bolt}", "{0: bolt, '0': nut}", "3", "[]", "[[]]"])
def test_names_without_numbers_are_refused(tmp_path, bring, names):
    status, printed, _ = bring("yolo", yolo_set(tmp_path / "y", f"0 {FRACTIONS}", names))
    assert (status, "names" in printed) == (1, True) or names == "[[]]"


@pytest.mark.parametrize(
    ("boxes", "crowd"), [("drop", []), ("rectangle", [0]), ("ignore", [1]), ("keep", [1])]
)
def test_boxes_among_polygons_become_what_was_requested(tmp_path, bring, boxes, crowd):
    root = yolo_set(tmp_path / "y", f"0 {FRACTIONS}\n0 0.5 0.5 0.25 0.2\n")
    status, printed, split = bring("yolo", root, "--boxes", boxes)
    assert status == 0 and "box without a mask" in printed
    assert split().load(0).crowd.astype(int).tolist() == [0, *crowd]


def test_an_error_names_the_searched_folders_if_there_is_no_label_file(tmp_path, bring):
    picture(tmp_path / "set" / "train" / "a.png")
    text(tmp_path / "set" / "data.yaml", "train: train\nnames: [bolt]\n")
    status, printed, _ = bring("yolo", tmp_path / "set")
    assert status == 1 and "a.txt" in printed


def test_labels_and_images_without_each_other_are_counted(tmp_path, bring):
    root = yolo_set(tmp_path / "y", f"0 {FRACTIONS}\n")
    picture(root / "images" / "train" / "b.jpg")
    text(root / "labels" / "train" / "c.txt", f"0 {FRACTIONS}")
    _, printed, _ = bring("yolo", root)
    assert "image without labels" in printed and "labels without an image" in printed


def test_random_yolo_files_are_reported_or_counted(tmp_path, bring):
    root = yolo_set(tmp_path / "y", f"0 {FRACTIONS}")
    draw = random.Random(4)
    words = ["0", "1", "1e9", "nan", "inf", "-3", "x", "0.5", "0.25", "99", "\x00", "1,5"]
    for number in range(120):
        row = FRACTIONS.split()
        row = ["0", *row]
        for _ in range(draw.randint(1, 4)):
            row[draw.randrange(len(row))] = draw.choice(words)
        row = row[: draw.randint(1, len(row))]
        data = " ".join(row).encode()
        if number % 10 == 0:
            data = bytes(draw.randrange(256) for _ in range(40))
        (root / "labels" / "train" / "a.txt").write_bytes(data)
        assert bring("yolo", root)[0] in (0, 1)
