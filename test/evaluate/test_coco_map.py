"""Results whose AP is known by hand get that average precision."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("pycocotools")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.datasets.coco import CocoDataset  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402
from yolact_ros.evaluate.coco_map import evaluate_dataset  # noqa: E402
from yolact_ros.evaluate.results import evaluate_results  # noqa: E402
from yolact_ros.runtime.detections import Detections  # noqa: E402
from yolact_ros.runtime.output.entries import describe  # noqa: E402

# x1 y1 x2 y2 and class of the true instances, by image; each fills its box. Image 9 has none.
TRUTH = {2: [(0, 0, 40, 20, 0), (50, 50, 90, 70, 1)], 5: [(10, 10, 50, 30, 0)], 9: []}
CATEGORIES = {0: 3, 1: 7}


def polygon(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


@pytest.fixture
def folder(tmp_path):
    """Write three 100x80 images, each with its id as the first pixel, and their annotations."""
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": 3, "name": "cup"}, {"id": 7, "name": "spoon"}]
    for image_id, instances in TRUTH.items():
        image = np.zeros((80, 100, 3), np.uint8)
        image[0, 0] = image_id
        cv2.imwrite(str(tmp_path / f"{image_id}.png"), image)
        content["images"].append(
            {"id": image_id, "file_name": f"{image_id}.png", "height": 80, "width": 100}
        )
        for x1, y1, x2, y2, class_id in instances:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": CATEGORIES[class_id],
                    "segmentation": polygon(x1, y1, x2, y2),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def dataset(folder):
    return CocoDataset(folder / "truth.json", folder, classes=("cup", "spoon"))


def found(rows, *, mask_scores=None):
    """Return detections from rows (x1, y1, x2, y2, class, score), whose masks fill their boxes."""
    if not rows:
        return Detections.empty((80, 100), timings={"inference": 2.0})
    boxes = np.array([row[:4] for row in rows], np.int32)
    scores = np.array([row[5] for row in rows], np.float32)
    return Detections(
        boxes=boxes.astype(np.float32),
        scores=scores,
        mask_scores=scores if mask_scores is None else np.array(mask_scores, np.float32),
        class_ids=np.array([row[4] for row in rows], np.int64),
        mask_rois=boxes,
        masks=tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in boxes),
        image_size=(80, 100),
        timings={"inference": 2.0},
    )


def oracle(change=lambda row: row):
    """Return a segmenter that finds the true instances, each changed by a function."""
    return lambda image: found([change((*row, 0.9)) for row in TRUTH[int(image[0, 0, 0])]])


def test_the_ground_truth_scores_one(dataset):
    scores = evaluate_dataset(oracle(), dataset).scores
    assert scores.box["ap"] == scores.mask["ap"] == scores.mask["ap50"] == pytest.approx(1)
    assert scores.mask["ar_100"] == pytest.approx(1)
    assert scores.mask["ap_large"] is None  # no instance is larger than 96x96
    assert (scores.images, scores.detections) == (3, 3)
    assert scores.classes["cup"].instances == 2
    assert scores.classes["spoon"].mask_ap == pytest.approx(1)
    assert scores.milliseconds == {"inference": 2.0}


def test_finding_nothing_scores_zero(dataset):
    scores = evaluate_dataset(lambda image: found([]), dataset).scores
    assert scores.box["ap"] == scores.mask["ap"] == scores.mask["ar_100"] == 0
    assert scores.detections == 0


def test_an_iou_of_five_eighths_counts_at_three_of_ten_thresholds(dataset):
    # 25 of 40 columns: more than 0.50, 0.55 and 0.60.
    scores = evaluate_dataset(oracle(lambda r: (r[0], r[1], r[0] + 25, *r[3:])), dataset).scores
    assert scores.box["ap"] == scores.mask["ap"] == pytest.approx(0.3)
    assert scores.box["ap50"] == pytest.approx(1)
    assert scores.box["ap75"] == 0


def test_the_wrong_class_scores_zero(dataset):
    scores = evaluate_dataset(oracle(lambda r: (*r[:4], 1 - r[4], r[5])), dataset).scores
    assert scores.mask["ap"] == 0


def test_masks_are_ranked_by_mask_score_and_boxes_by_class_score(dataset):
    def segment(image):
        rows = [(*row, 0.8) for row in TRUTH[int(image[0, 0, 0])]]
        ghosts = [(60, 5, 80, 25, 0, 0.9)]  # surer of its class than the true ones
        return found(rows + ghosts, mask_scores=[0.8] * len(rows) + [0.1])

    scores = evaluate_dataset(segment, dataset).scores
    assert scores.classes["cup"].mask_ap == pytest.approx(1)
    # Three ghosts before two cups: precision 1/4, then 2/5, whose later maximum counts: 2/5.
    assert scores.classes["cup"].box_ap == pytest.approx(0.4)


def test_a_false_detection_in_an_image_without_instances_counts(dataset):
    def segment(image):
        rows = [(*row, 0.5) for row in TRUTH[int(image[0, 0, 0])]]
        return found(rows or [(0, 0, 10, 10, 1, 0.9)])

    scores = evaluate_dataset(segment, dataset).scores
    assert scores.classes["spoon"].mask_ap == pytest.approx(0.5)
    assert scores.classes["cup"].mask_ap == pytest.approx(1)


def test_crowds_are_neither_found_nor_missed(folder):
    content = json.loads((folder / "truth.json").read_text())
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][0]["segmentation"] = {"size": [80, 100], "counts": [0, 3200, 4800]}
    (folder / "truth.json").write_text(json.dumps(content))
    dataset = CocoDataset(folder / "truth.json", folder, classes=("cup", "spoon"))
    scores = evaluate_dataset(oracle(), dataset).scores
    assert scores.mask["ap"] == pytest.approx(1)
    assert scores.classes["cup"].instances == 1


def test_annotations_without_box_area_and_crowd_flag_are_understood(folder):
    content = json.loads((folder / "truth.json").read_text())
    for annotation in content["annotations"]:
        for key in ("bbox", "area", "iscrowd"):
            del annotation[key]
    (folder / "truth.json").write_text(json.dumps(content))
    dataset = CocoDataset(folder / "truth.json", folder, classes=("cup", "spoon"))
    assert evaluate_dataset(oracle(), dataset).scores.box["ap"] == pytest.approx(1)


def test_classes_that_the_file_lacks_are_left_out(folder):
    dataset = CocoDataset(folder / "truth.json", folder, classes=("cup", "spoon", "unicorn"))

    def segment(image):
        rows = [(*row, 0.9) for row in TRUTH[int(image[0, 0, 0])]]
        return found(rows or [(0, 0, 9, 9, 2, 1.0)])

    scores = evaluate_dataset(segment, dataset).scores
    assert scores.mask["ap"] == pytest.approx(1)
    assert set(scores.classes) == {"cup", "spoon"}
    assert scores.detections == 3


def test_limit_selects_the_first_images(dataset):
    scores = evaluate_dataset(oracle(), dataset, limit=1).scores
    assert (scores.images, scores.classes["cup"].instances) == (1, 1)


def test_missing_images_are_named_before_anything_runs(folder, dataset):
    (folder / "5.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 images.*5\.png"):
        evaluate_dataset(lambda image: pytest.fail("an image was segmented"), dataset)


def test_a_file_without_images_is_reported(folder):
    path = folder / "empty.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(DatasetError, match="no images"):
        evaluate_dataset(oracle(), CocoDataset(path, folder))


def test_the_command_writes_json_and_prints_a_table(folder, tiny_bundle, capsys):
    words = ["evaluate", str(tiny_bundle.folder), "--images", str(folder), "--threads", "1"]
    words += ["--annotations", str(folder / "truth.json"), "--json", str(folder / "scores.json")]
    assert main(words) == 0
    content = json.loads((folder / "scores.json").read_text())
    assert set(content["box"]) >= {"ap", "ap50", "ap75", "ap_small", "ar_100"}
    assert content["mask"]["ap"] == 0  # the images are black: both masks are empty
    assert 0 <= content["box"]["ap50"] <= 1
    assert content["detections"] == 12
    assert content["settings"]["score_threshold"] == 0.05
    text = capsys.readouterr().out
    assert "AP50" in text and "spoon" in text and "3 images, 12 detections" in text


@pytest.fixture
def results(folder):
    """Write the results of a model that finds the first cup and half of the second one."""
    entries = []
    for image_id, rows in {2: [(0, 0, 40, 20, 0, 0.9)], 5: [(10, 10, 30, 30, 0, 0.8)]}.items():
        entries.append(describe(f"some/{image_id}.png", found(rows), ("cup", "spoon"), None))
    entries.append(describe("some/9.png", found([]), ("cup", "spoon"), None))
    (folder / "results.json").write_text(json.dumps(entries))
    return folder / "results.json"


def test_written_results_are_compared_with_annotations(folder, results, capsys):
    words = ["evaluate", str(results), "--annotations", str(folder / "truth.json")]
    assert main([*words, "--json", str(folder / "scores.json")]) == 0
    scores = json.loads((folder / "scores.json").read_text())
    # Of two cups one is found at every threshold, the other at none but 0.5: precision 1 up to
    # recall 1/2, which are 51 of the 101 points.
    assert scores["classes"]["cup"]["mask_ap50"] == pytest.approx(1)
    assert scores["classes"]["cup"]["mask_ap"] == pytest.approx((1 + 9 * 51 / 101) / 10)
    assert scores["classes"]["spoon"]["box_ap"] == 0
    assert (scores["images"], scores["detections"]) == (3, 2)
    assert main([*words, "--report", str(folder / "report")]) == 1
    assert main([*words, "--score-threshold", "0.5"]) == 1
    assert "only to the command that writes results" in capsys.readouterr().err


def test_results_of_a_model_score_as_the_model_does(folder, tiny_bundle):
    model = [str(tiny_bundle.folder), "--threads", "1", "--score-threshold", "0.05"]
    written, truth = str(folder / "found.json"), ["--annotations", str(folder / "truth.json")]
    assert main(["predict", str(folder), "--model", *model, "--json", written]) == 0
    for model_or_results, name in (([*model, "--images", str(folder)], "a"), ([written], "b")):
        words = [*model_or_results, *truth, "--json", str(folder / f"{name}.scores")]
        assert main(["evaluate", *words]) == 0
    scores = [json.loads((folder / f"{name}.scores").read_text()) for name in "ab"]
    assert scores[0]["box"] == pytest.approx(scores[1]["box"], abs=1e-3)
    assert scores[0]["detections"] == scores[1]["detections"] == 12


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda entries: entries.pop(), "not have exactly one entry for 1 of 3 images.*9.png"),
        (
            lambda entries: entries.append(entries[0]),
            "not have exactly one entry for 1 of 3.*2.png",
        ),
        (lambda entries: entries[0].pop("height"), "Entry 0 .* is not complete"),
        (lambda entries: entries[0].update(height="80"), "has no name, or no size"),
        (lambda entries: entries[0].update(instances=7), "is not complete"),
        (lambda entries: entries[0]["instances"][0].update(score=None), "is not complete"),
        (lambda entries: entries[0]["instances"][0].update(box=[1]), "box or a score"),
        (
            lambda entries: entries[0]["instances"][0]["segmentation"].update(counts="0"),
            "corrupt run-length",
        ),
    ],
)
def test_results_that_do_not_match_are_named(folder, dataset, results, change, reason):
    entries = json.loads(results.read_text())
    change(entries)
    results.write_text(json.dumps(entries))
    with pytest.raises(DatasetError, match=reason):
        evaluate_results(results, dataset)
    results.write_text("{}")
    with pytest.raises(DatasetError, match="is not a list"):
        evaluate_results(results, dataset)


def test_an_output_that_cannot_be_written_is_reported_at_once(folder, tiny_bundle, capsys):
    words = ["evaluate", str(tiny_bundle.folder), "--images", str(folder), "--json", "nowhere/x"]
    assert main([*words, "--annotations", str(folder / "truth.json")]) == 1
    assert "nowhere/x cannot be written" in capsys.readouterr().err
