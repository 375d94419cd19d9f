"""Exports of labelling tools are imported completely, and their quirks are reported."""

from __future__ import annotations

import base64
import random

import cv2
import numpy as np
import pytest

rle_masks = pytest.importorskip("pycocotools.mask")

from exports import HEIGHT, SQUARE, WIDTH, check_square, picture, text  # noqa: E402

from yolact_ros.datasets.importers.voc import palette  # noqa: E402


def coco(*names, **changes):
    entry = {"category_id": 1, "segmentation": [SQUARE], "bbox": [20, 15, 40, 30], "iscrowd": 0}
    return {
        "images": [{"id": i, "file_name": n, "height": HEIGHT, "width": WIDTH}
                   for i, n in enumerate(names)],
        "annotations": [{**entry, "id": i, "image_id": i, **changes} for i in range(len(names))],
        "categories": [{"id": 0, "name": "parts"}, {"id": 1, "name": "bolt"}],
    }  # fmt: skip


def labelme(path, *shapes, **changes):
    polygon = {"label": "bolt", "points": np.reshape(SQUARE, (-1, 2)).tolist()}
    content = {"shapes": list(shapes) or [polygon], "imagePath": "a.png", "imageData": None,
               "imageHeight": HEIGHT, "imageWidth": WIDTH, **changes}  # fmt: skip
    text(path, content)


def test_labelme_finds_pictures_by_paths_of_windows(tmp_path, bring):
    picture(tmp_path / "set" / "images" / "a.png")
    labelme(tmp_path / "set" / "json" / "a.json", imagePath="..\\images\\a.png")
    labelme(tmp_path / "set" / "json" / "b.json", imagePath="D:\\old\\images\\a.png")
    _, printed, split = bring("labelme", tmp_path / "set")
    check_square(split())
    assert "file listed twice" in printed


def test_pictures_inside_labelme_files_are_read(tmp_path, bring):
    data = picture(tmp_path / "a.png").read_bytes()
    labelme(tmp_path / "set" / "a.json", imageData=base64.b64encode(data).decode())
    labelme(tmp_path / "set" / "b.json", imageData="!!!", imagePath="b.png")
    labelme(tmp_path / "set" / "c.json", imagePath="c.png")
    status, printed, split = bring("labelme", tmp_path / "set")
    assert status == 0 and "not base64" in printed and "labels without an image" in printed
    check_square(split())


@pytest.mark.parametrize(("factor", "fits"), [(2, True), (0.5, True), (1.5, False)])
def test_labels_of_a_resized_picture_are_scaled_or_refused(tmp_path, bring, factor, fits):
    picture(tmp_path / "set" / "a.png")
    points = (np.reshape(SQUARE, (-1, 2)) * factor).tolist()
    height = HEIGHT * factor if fits else HEIGHT
    labelme(tmp_path / "set" / "a.json", {"label": "bolt", "points": points},
            imageHeight=int(height), imageWidth=int(WIDTH * factor))  # fmt: skip
    status, printed, split = bring("labelme", tmp_path / "set")
    assert status == (0 if fits else 1)
    if fits:
        check_square(split())
    else:
        assert "size differs" in printed


def test_labelme_shapes_with_an_area_are_used_and_the_others_counted(tmp_path, bring):
    picture(tmp_path / "set" / "a.png")
    mask = cv2.imencode(".png", np.full((30, 40), 255, np.uint8))[1].tobytes()
    corners = np.reshape(SQUARE, (-1, 2)).tolist()
    shapes = [
        {"label": "bolt", "shape_type": "rectangle", "points": corners},
        {"label": "bolt", "shape_type": "rectangle", "points": [[60, 45], [20, 15]]},
        {"label": "bolt", "shape_type": "rotation", "points": corners},
        {"label": "bolt ", "shape_type": "mask", "points": [[20, 15], [59, 44]],
         "mask": base64.b64encode(mask).decode()},
        {"label": "bolt", "shape_type": "line", "points": [[1, 1], [5, 5]]},
        {"label": "bolt", "shape_type": "mask", "points": [[20, 15], [59, 44]], "mask": "AAAA"},
        {"label": "bolt", "points": corners[:3], "group_id": [1]},
        {"label": "bolt", "points": corners[1:], "group_id": [1]},
    ]  # fmt: skip
    labelme(tmp_path / "set" / "a.json", *shapes)
    _, printed, split = bring("labelme", tmp_path / "set")
    sample = split().load(0)
    assert np.asarray(sample.masks).sum(axis=(1, 2))[:4].tolist() == [1200] * 4
    assert len(sample) == 5  # the group is one
    assert "shape without an area: line" in printed and "without an area: mask" in printed


def test_equal_names_in_several_folders_are_all_kept(tmp_path, bring):
    for number, name in enumerate(("d1/a", "d1/a_2", "d2/a")):
        picture(tmp_path / "set" / f"{name}.png", (HEIGHT + number, WIDTH))
        labelme(tmp_path / "set" / f"{name}.json", imagePath=f"{name[3:]}.png",
                imageHeight=HEIGHT + number)  # fmt: skip
    for words in ((), ("--copy",)):
        status, _, split = bring("labelme", tmp_path / "set", *words)
        assert status == 0
        assert {split().load(i).image.shape[0] for i in range(3)} == {60, 61, 62}


def voc(root, objects, classes, name="a", split="default"):
    picture(root / "JPEGImages" / f"{name}.jpg")
    text(root / "ImageSets" / "Segmentation" / f"{split}.txt", f"{name}\n")
    for folder, image in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        (root / folder).mkdir(exist_ok=True)
        cv2.imwrite(str(root / folder / f"{name}.png"), image)
    return root


def coloured(*rgb):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[15:45, 20:60] = rgb[::-1]
    return image


def test_cvat_names_its_colours_in_a_labelmap(tmp_path, bring):
    root = voc(tmp_path / "v", coloured(1, 2, 3), coloured(250, 50, 83), "my picture")
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
         "bolt:250,50,83::\nnut:128,0,0::\n")  # fmt: skip
    status, printed, split = bring("voc", root)
    assert status == 0 and "class without an instance" in printed
    check_square(split())


def test_unknown_colours_are_counted_and_reported(tmp_path, bring):
    status, printed, _ = bring("voc", voc(tmp_path / "v", coloured(1, 2, 3), coloured(9, 9, 9)))
    assert "labelmap.txt" in printed and "0 instances" in printed
    assert status == 0


@pytest.mark.parametrize("kind", ["16 bits", "4 bits", "x257"])
def test_masks_without_eight_bits_are_refused(tmp_path, bring, kind):
    grey = coloured(1, 1, 1)[..., 0]
    root = voc(tmp_path / "v", grey, grey)
    path = root / "SegmentationClass" / "a.png"
    if kind == "4 bits":
        from PIL import Image

        Image.fromarray(grey).convert("L").quantize(2).save(root / "p.png", bits=4)
        data = bytearray(path.read_bytes())
        data[24] = 4  # what the header says is what counts
        path.write_bytes(data)
    else:
        cv2.imwrite(str(path), grey.astype(np.uint16) * (257 if kind == "x257" else 1))
    status, printed, _ = bring("voc", root)
    assert status == 1 and "bits per sample" in printed


def test_palette_masks_are_read_as_their_colours(tmp_path, bring):
    from PIL import Image

    grey = coloured(1, 1, 1)[..., 0]
    root = voc(tmp_path / "v", grey, grey, split="train")
    for folder in ("SegmentationClass", "SegmentationObject"):
        image = Image.fromarray(grey, "P")
        image.putpalette(palette()[:, ::-1].tobytes())
        image.save(root / folder / "a.png", bits=4)
    status, _, split = bring("voc", root, "--classes", "bolt")
    assert status == 0
    check_square(split())


def test_cvat_writes_a_prefix_and_brush_masks_as_crowds(tmp_path, bring):
    root = tmp_path / "cvat"
    picture(root / "images" / "a.jpg")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[15:45, 20:60] = 1
    runs = [int(n) for n in np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=2)))]
    rle = {"size": [HEIGHT, WIDTH], "counts": [*runs, HEIGHT * WIDTH - sum(runs)]}
    text(root / "annotations" / "instances_default.json",
         coco("images/a.jpg", segmentation=rle, iscrowd=1))  # fmt: skip
    status, printed, split = bring("coco", root)
    assert "crowd (iscrowd 1), neither object nor background" in printed
    assert "1 of 1 annotations" in printed and "--crowd-as-objects" in printed
    assert split().instances == [0]
    status, printed, split = bring("coco", root, "--crowd-as-objects")
    assert status == 0 and "imported as an object" in printed
    check_square(split())
    assert split().instances == [1]


@pytest.mark.parametrize("name", ["/label-studio/data/upload/3/0123abcd-a.jpg",
                                  "images\\\\0123abcd-a.jpg", "0123abcd-a.jpg"])  # fmt: skip
def test_label_studio_writes_server_paths_and_prefixes(tmp_path, bring, name):
    picture(tmp_path / "ls" / "images" / "a.jpg")
    text(tmp_path / "ls" / "result.json", coco(name))
    status, _, split = bring("coco", tmp_path / "ls")
    assert status == 0
    check_square(split())


def test_roboflow_has_a_file_beside_the_pictures_of_each_split(tmp_path, bring):
    for split in ("train", "valid", "test"):
        picture(tmp_path / "rf" / split / "a.jpg")
        text(tmp_path / "rf" / split / "_annotations.coco.json", coco("a.jpg"))
    status, printed, split = bring("coco", tmp_path / "rf")
    assert status == 0 and "class without an instance" in printed  # category 0
    for name in ("train", "val", "test"):
        assert split(name).classes == ("bolt",)
        check_square(split(name))


def test_jobs_are_merged_by_the_names_of_their_classes_and_split(tmp_path, bring):
    for job in ("one", "two"):
        names = [f"{i}.jpg" for i in range(20)]
        for name in names:
            picture(tmp_path / job / name)
        content = coco(*names)
        if job == "two":  # the same classes under other numbers
            content["categories"] = [{"id": 1, "name": "bolt "}]
        text(tmp_path / job / "instances.json", content)
    status, _, split = bring("coco", tmp_path / "one", tmp_path / "two", "--validation", "0.3")
    assert status == 0
    assert len(split("train")) + len(split("val")) == 40 and 2 < len(split("val")) < 26
    assert split().classes == ("bolt",)


def test_a_validation_fraction_is_refused_if_a_split_exists(tmp_path, bring):
    for split in ("train", "valid"):
        picture(tmp_path / "rf" / split / "a.jpg")
        text(tmp_path / "rf" / split / "_annotations.coco.json", coco("a.jpg"))
    status, printed, _ = bring("coco", tmp_path / "rf", "--validation", "0.2")
    assert status == 1 and "already has a split val" in printed


def test_strict_stops_and_leaves_no_files(tmp_path, bring):
    picture(tmp_path / "set" / "a.jpg")
    text(tmp_path / "set" / "a.json", coco("a.jpg", "b.jpg"))
    assert bring("coco", tmp_path / "set")[0] == 0
    status, printed, split = bring("coco", tmp_path / "set", "--strict")
    assert status == 1 and "missing image" in printed
    with pytest.raises(Exception, match="cannot be read"):
        split()


ODD = [None, 1, -1, 1e300, 10**20, [], {}, [[1]], "x", True, "a" * 300, {"a": []}, "\\", "\0"]


def test_random_labelme_files_are_reported_or_counted(tmp_path, bring):
    picture(tmp_path / "set" / "a.png")
    draw = random.Random(3)
    for _ in range(150):
        square = np.reshape(SQUARE, (-1, 2)).tolist()
        shape = {"label": "bolt", "points": square, "shape_type": "polygon", "group_id": 1}
        content = {"shapes": [shape, dict(shape)], "imagePath": "a.png", "imageData": None,
                   "imageHeight": HEIGHT, "imageWidth": WIDTH}  # fmt: skip
        for _ in range(draw.randint(1, 3)):
            place = draw.choice([content, shape])
            place[draw.choice(list(place))] = draw.choice(ODD)
        text(tmp_path / "set" / "a.json", content)
        assert bring("labelme", tmp_path / "set")[0] in (0, 1)


def test_random_voc_masks_are_reported_or_counted(tmp_path, bring):
    root = voc(tmp_path / "v", coloured(128, 0, 0), coloured(128, 0, 0), split="train")
    path = root / "SegmentationClass" / "a.png"
    whole = path.read_bytes()
    draw = random.Random(6)
    for number in range(60):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: draw.randrange(len(data))]
        elif number % 3 == 1:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            data[16:24] = (60000).to_bytes(4, "big") * 2
        path.write_bytes(data)
        lines = draw.choice([b"a\n", b"\xff\xfe", b"x" * 300, b"\0", b"my a\na 1\n", b""])
        (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(lines)
        assert bring("voc", root)[0] in (0, 1)


def test_file_names_that_are_not_utf8_are_imported(tmp_path, bring):
    import os

    folder = tmp_path / "set"
    picture(folder / "a.png")
    os.rename(bytes(folder / "a.png"), bytes(folder) + b"/\xff.png")
    labelme(folder / "a.json", imagePath="\udcff.png")
    labelme(folder / "b.json", imagePath="\udcfe.png")
    status, printed, split = bring("labelme", folder)
    assert status == 0 and "labels without an image" in printed
    check_square(split())
