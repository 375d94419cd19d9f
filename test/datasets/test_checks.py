"""Every fault of a data set is found with its kind and location; a good data set has none."""

from __future__ import annotations

import copy
import json
import shutil

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.datasets.check import (  # noqa: E402  # noqa: E402
    check_split,
    check_unlisted,
    compare_splits,
    equal_images,
    hash_image,
    similar_images,
)
from yolact_ros.datasets.findings import ERROR, WARNING  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402


def picture(seed: int, size=(60, 80)) -> np.ndarray:
    """Return a smooth random image."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def square(number: int, image: int, x: int = 10, y: int = 10, side: int = 30) -> dict:
    corners = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0,
        "segmentation": [corners], "bbox": [x, y, side, side],
    }  # fmt: skip


@pytest.fixture
def good(tmp_path):
    """Write 21 images of one square each; return their content and a function to check it."""
    folder = tmp_path / "images"
    folder.mkdir()
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "square"}]}
    for i in range(21):
        cv2.imwrite(str(folder / f"{i}.png"), picture(i))
        content["images"].append({"id": i, "file_name": f"{i}.png", "height": 60, "width": 80})
        content["annotations"].append(square(i + 1, i))

    def check(changed, name="a.json"):
        path = tmp_path / name
        path.write_text(json.dumps(changed))
        return check_split(path, folder)

    return content, check, folder


def kinds(findings, severity=None):
    return {kind for s, kind, _ in findings.ordered() if severity in (None, s)}


def test_a_good_data_set_has_no_findings(good):
    content, check, _ = good
    report = check(content)
    check_unlisted([report])
    assert not report.findings.places
    assert report.images == 21
    assert dict(report.instances) == {"square": 21}
    assert report.empty_images == 0


def test_a_data_set_without_images_is_read(good):
    _, check, _ = good
    report = check({"images": [], "annotations": [], "categories": []})
    assert report.images == 0
    assert not report.findings.places


BAD_ANNOTATIONS = {
    "annotation of an unknown image": {"image_id": 99},
    "annotation of an unknown category": {"category_id": 7},
    "box outside the image": {"bbox": [200, 10, 30, 30]},
    "box without an area": {"bbox": [10, 10, 0, 30]},
    "box that is not x, y, width, height": {"bbox": ["a", 1, 2, 3]},
    "annotation whose mask has no pixel": {"segmentation": [[200, 200, 210, 200, 210, 210]]},
}


@pytest.mark.parametrize("kind", BAD_ANNOTATIONS)
def test_a_broken_annotation_is_an_error_with_its_number(good, kind):
    content, check, _ = good
    changed = copy.deepcopy(content)
    changed["annotations"][3].update(BAD_ANNOTATIONS[kind])
    report = check(changed)
    assert kind in kinds(report.findings, ERROR)
    (place,) = report.findings.places[(ERROR, kind)]
    assert "annotation 4" in place


@pytest.mark.parametrize("polygon", [[[1, 2, 3]], [[1, 2, 3, 4, float("inf"), 6]], "words"])
def test_an_unusable_polygon_is_an_error_and_yields_no_instance(good, polygon):
    content, check, _ = good
    changed = copy.deepcopy(content)
    changed["annotations"][0]["segmentation"] = polygon
    report = check(changed)
    assert report.findings.count(ERROR) == 1
    assert report.instances["square"] == 20
    assert kinds(report.findings, WARNING) == {"image without an instance"}


def test_odd_annotations_are_warnings(good):
    content, check, _ = good
    changed = copy.deepcopy(content)
    changed["annotations"][0]["segmentation"].append([1, 2])
    changed["annotations"][1]["bbox"] = [60, 30, 15, 15]
    changed["annotations"][2].update(square(3, 2, x=60, side=30))
    changed["annotations"].append({**changed["annotations"][4], "id": 100})
    changed["annotations"].append({**square(6, 7, x=45, y=20, side=1), "id": 101})
    report = check(changed)
    assert not report.findings.count(ERROR)
    assert kinds(report.findings) == {
        "broken polygon beside usable ones", "box that does not match its mask",
        "polygon that extends beyond the image", "box that extends beyond the image",
        "object annotated twice",
        "tiny object",
    }  # fmt: skip


def test_faulty_files_are_named(good):
    content, check, folder = good
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "2.jpg"), picture(2))
    (folder / "2.jpg").write_bytes((folder / "2.jpg").read_bytes()[:-2])
    (folder / "2.png").unlink()
    content["images"][2]["file_name"] = "2.jpg"
    cv2.imwrite(str(folder / "3.png"), picture(3, (30, 40)))
    shutil.copy(folder / "5.png", folder / "4.png")
    cv2.imwrite(str(folder / "not_listed.png"), picture(77))
    report = check(content)
    check_unlisted([report])
    places = {kind: where for _, kind, where in report.findings.ordered()}
    assert places["missing image"] == ["0.png"]
    undecoded = places["image that cannot be decoded"]
    assert sorted(place.split()[0] for place in undecoded) == ["1.png", "2.jpg"]
    assert places["image whose size differs from the listed one"] == [
        "3.png: 40x30, listed as 80x60"
    ]
    assert places["the same image several times"] == ["4.png = 5.png"]
    assert places["image that is not listed"] == ["not_listed.png"]


def test_images_in_two_splits_are_found(good, tmp_path):
    content, check, folder = good
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "6.png", other / "same.png")
    brighter = cv2.convertScaleAbs(cv2.imread(str(folder / "9.png"))[:, ::-1], alpha=0.8, beta=10)
    cv2.imwrite(str(other / "similar.jpg"), brighter)
    cv2.imwrite(str(other / "new.png"), picture(500))
    names = ["same.png", "similar.jpg", "new.png"]
    images = [
        {"id": i, "file_name": name, "height": 60, "width": 80} for i, name in enumerate(names)
    ]
    path = tmp_path / "b.json"
    annotations = [square(i + 1, i) for i in range(3)]
    path.write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    findings = compare_splits(check(content), check_split(path, other))
    places = {kind: where for _, kind, where in findings.ordered()}
    assert places["the same image in both"] == ["6.png = same.png"]
    assert places["nearly the same image in both"] == ["9.png ~ similar.jpg"]
    assert findings.count(ERROR) == 1


def test_a_class_without_instances_and_a_rare_one_are_warnings(good):
    content, check, _ = good
    changed = copy.deepcopy(content)
    changed["categories"] += [{"id": 2, "name": "disc"}, {"id": 3, "name": "ring"}]
    changed["annotations"][0]["category_id"] = 2
    places = {kind: where for _, kind, where in check(changed).findings.ordered()}
    assert places["class without an instance"] == ["ring"]
    assert places["rare class"] == ["disc (1; the largest has 20)"]


def test_images_of_one_colour_resemble_no_other():
    grey = [np.full((40, 40), value, np.uint8) for value in (0, 90)]
    hashes = [hash_image(bytes([i]), image) for i, image in enumerate(grey)]
    assert not list(similar_images(hashes[:1], hashes[1:]))
    assert not list(similar_images([], hashes))
    assert not equal_images(hashes)


def test_the_command_draws_and_reports_errors_by_its_status(good, tmp_path, capsys):
    content, check, folder = good
    check(content)
    words = ["check-dataset", str(tmp_path / "a.json"), "--images", str(folder)]
    sheets, report = tmp_path / "sheets", tmp_path / "report.json"
    assert main([*words, "-o", str(sheets), "--json", str(report)]) == 0
    assert "no findings" in capsys.readouterr().out
    assert cv2.imread(str(sheets / "contact_sheet_a.png")).std() > 5
    assert json.loads(report.read_text())["instances_and_images"]["a"]["square"] == [21, 21]
    (folder / "0.png").unlink()
    assert main(words) == 1
    assert "missing image" in capsys.readouterr().out


def test_what_is_not_an_annotation_file_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"images": 3}')
    with pytest.raises(DatasetError, match="lacks a list of images, annotations, categories"):
        check_split(tmp_path / "a.json", tmp_path)
