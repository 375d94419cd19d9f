"""Mistakes and confusions match hand-made cases, and a real evaluation yields a report."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

rle_masks = pytest.importorskip("pycocotools.mask")
pytest.importorskip("matplotlib")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.evaluate.confusion import count_confusions, match_instances  # noqa: E402
from yolact_ros.evaluate.gallery import describe_mistake, draw_case, draw_gallery  # noqa: E402
from yolact_ros.evaluate.mistakes import (  # noqa: E402
    INVENTED,
    MISSED,
    POOR_MASK,
    WRONG_CLASS,
    MatchedImage,
    find_mistakes,
    mask_iou_matrix,
    worst,
)


def test_each_instance_is_matched_once_best_score_first():
    iou = np.array([[0.6, 0.9], [0.0, 0.8], [0.55, 0.3]])
    matches = match_instances(iou, np.array([0.5, 0.9, 0.7]), threshold=0.5)
    assert matches.tolist() == [-1, 1, 0]
    assert match_instances(np.zeros((0, 2)), np.zeros(0), threshold=0.5).tolist() == []
    assert match_instances(np.zeros((2, 0)), np.ones(2), threshold=0.5).tolist() == [-1, -1]


def test_the_right_class_has_precedence_and_a_second_mask_of_another_class_is_a_confusion():
    iou = np.array([[0.92, 0.0], [0.90, 0.0], [0.85, 0.0], [0.1, 0.7]])
    same = np.array([[False, True], [True, False], [True, False], [False, False]])
    scores = np.array([0.9, 0.5, 0.4, 0.3])
    # The first lies on a thing of another class, which the second names rightly; the third finds
    # it once more, and the fourth takes what nobody else has.
    matches = match_instances(iou, scores, threshold=0.5, same=same)
    assert matches.tolist() == [0, 0, -1, 1]
    counts = count_confusions(
        np.array([0, 1]), np.array([1, 0, 0, 2]), matches=matches, num_classes=3
    )
    assert counts.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_captions_have_the_file_and_the_class_score():
    image = matched([row(0, 0)], [row(1, 0, score=0.34)])
    (mistake,) = find_mistakes(image)
    lines = describe_mistake(mistake, file_name="IMG_0034.jpg", names=("wrench", "calipers"))
    assert lines == ("wrench detected as calipers 0.34", "IMG_0034.jpg, IoU 1.00")
    long = describe_mistake(mistake, file_name=f"{'x' * 60}_7.jpg", names=("wrench", "calipers"))
    assert long[1].startswith("..x") and "_7.jpg, IoU" in long[1] and len(long[1]) < 50


def test_a_case_shows_the_truth_in_green_on_the_left_and_the_detection_in_red_on_the_right():
    image = np.zeros((40, 100, 3), np.uint8)
    (mistake,) = find_mistakes(matched([row(0, 40)], [row(1, 40, score=0.34)]))
    drawn = draw_case(image, mistake)
    assert drawn.shape == (200, 406, 3)
    # The window is 64 pixels wide and centred on the object, so that is in the middle of a panel.
    assert drawn[100, 100].argmax() == 1 and drawn[100, 306].argmax() == 2
    assert (drawn[:, 200:206] == 255).all(), "the gap"


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_gallery_has_one_picture_and_one_caption_per_case(count):
    image = np.zeros((40, 100, 3), np.uint8)
    (mistake,) = find_mistakes(matched([row(0, 0)], [row(1, 0, score=0.34)]))
    cases = [(image, mistake, f"a_${number}$.jpg") for number in range(count)]
    figure = draw_gallery(cases, ("wrench", "Schlüssel"), title="mistakes")
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [
        f"wrench detected as Schlüssel 0.34\na_${number}$.jpg, IoU 1.00" for number in range(count)
    ]
    figure.canvas.draw()


def test_confusions_count_misses_and_inventions_at_the_border():
    counts = count_confusions(
        np.array([0, 1, 1]), np.array([0, 0, 1]), matches=np.array([0, 2, -1]), num_classes=2
    )
    assert counts.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    none = np.zeros(0, np.int64)
    assert not count_confusions(none, none, matches=none, num_classes=2).any()


def row(class_id, x, *, score=None, side=10):
    mask = np.zeros((40, 100), np.uint8, order="F")
    mask[10 : 10 + side, x : x + side] = 1
    entry = {
        "category_id": class_id, "segmentation": rle_masks.encode(mask), "area": side * side,
        "iscrowd": 0, "bbox": [x, 10, side, side],
    }  # fmt: skip
    return entry if score is None else {**entry, "score": score}


def matched(truth, found):
    iou = mask_iou_matrix(found, truth)
    scores = np.array([entry["score"] for entry in found])
    classes = [np.array([entry["category_id"] for entry in rows], int) for rows in (found, truth)]
    same = classes[0][:, None] == classes[1]
    matches = match_instances(iou, scores, threshold=0.5, same=same)
    return MatchedImage(1, truth, found, iou, matches)


def test_every_kind_of_mistake_is_named():
    truth = [row(0, 0), row(0, 20), row(1, 40), row(1, 60), row(0, 80, side=12)]
    found = [
        row(0, 0, score=0.9),  # right
        row(0, 22, score=0.8),  # IoU 2/3: a poor mask
        row(0, 40, score=0.7),  # right place, wrong class
        row(1, 66, score=0.6),  # IoU 1/4 with its class: one poor mask, not two mistakes
        row(1, 90, side=3, score=0.95),  # nothing of its class is there
    ]
    mistakes = {m.kind: m for m in find_mistakes(matched(truth, found)) if m.found != 3}
    assert (mistakes[WRONG_CLASS].truth, mistakes[WRONG_CLASS].found) == (2, 2)
    assert mistakes[POOR_MASK].iou == pytest.approx(80 / 120)
    assert (mistakes[INVENTED].found, mistakes[INVENTED].weight) == (4, 0.95)
    assert (mistakes[MISSED].truth, mistakes[MISSED].weight) == (4, 144)
    assert len(find_mistakes(matched(truth, found))) == 5
    assert find_mistakes(matched([], [])) == []
    assert [m.truth for m in worst(find_mistakes(matched(truth, [])), MISSED, count=2)] == [4, 0]


def test_a_report_is_written_with_its_pictures(tiny_bundle, tmp_path, capsys):
    image = np.zeros((64, 80, 3), np.uint8)
    image[10:50, 4:36, 0] = 250
    cv2.imwrite(str(tmp_path / "a.png"), image)
    corners = [4, 10, 36, 10, 36, 50, 4, 50]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 80}],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "spoon"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [corners]}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    words = ["evaluate", str(tiny_bundle.folder), "--annotations", str(tmp_path / "a.json")]
    words += ["--images", str(tmp_path), "--threads", "1", "--report", str(tmp_path / "report")]
    assert main(words) == 0
    assert "summary.md" in capsys.readouterr().out
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["shown"]["instances"] == 1
    assert summary["shown"]["detections"] == 2
    assert len(summary["mask"]) == 12
    text = (tmp_path / "report" / "summary.md").read_text()
    assert "mask AP" in text and "### Invented: 1" in text
    for name in ("precision_recall.png", "confusion.png"):
        assert name in text
        assert cv2.imread(str(tmp_path / "report" / name)).std() > 5


def test_a_report_cannot_be_combined_with_clips(tiny_bundle, tmp_path, capsys):
    words = ["evaluate", str(tiny_bundle.folder), "--video", str(tmp_path)]
    assert main([*words, "--report", str(tmp_path / "report")]) == 1
    assert "cannot be combined with --video" in capsys.readouterr().err
