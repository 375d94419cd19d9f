from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("motmetrics")
rle = pytest.importorskip("pycocotools.mask")

from yolact_ros.config import TrackerConfig
from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.tracks import evaluate_tracks
from yolact_ros.runtime.detections import Detections

SIZE = (60, 80)
FRAMES = 10


def boxes_of(frame: int) -> list[tuple[int, int, int, int]]:
    """Return two objects: one moves right; the other stays and is hidden in the last frames."""
    moving = (5 + 4 * frame, 5, 25 + 4 * frame, 25)
    return [moving] if frame >= 8 else [moving, (50, 40, 70, 55)]


@pytest.fixture
def clip(tmp_path):
    """Write a data set whose images carry their number in their first pixel."""
    images, annotations = [], []
    for frame in range(FRAMES):
        image = np.zeros((*SIZE, 3), np.uint8)
        image[0, 0] = frame
        cv2.imwrite(str(tmp_path / f"{frame}.png"), image)
        height, width = SIZE
        name = f"{frame}.png"
        images.append({"id": frame + 1, "file_name": name, "height": height, "width": width})
        for track, (x1, y1, x2, y2) in enumerate(boxes_of(frame), start=1):
            mask = np.zeros(SIZE, np.uint8, order="F")
            mask[y1:y2, x1:x2] = 1
            encoded = rle.encode(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": frame + 1,
                    "category_id": 1,
                    "segmentation": {"size": list(SIZE), "counts": encoded["counts"].decode()},
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "track_id": track,
                }
            )
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "cup"}]

    def write(drop: str = "") -> CocoDataset:
        for annotation in content["annotations"]:
            annotation.pop(drop, None)
        (tmp_path / "instances.json").write_text(json.dumps(content))
        return CocoDataset(tmp_path / "instances.json", tmp_path, classes=("cup", "spoon"))

    return write


def segment(image: np.ndarray, seconds: float = 0.0, *, turns_at: int = FRAMES) -> Detections:
    """Find every object; from frame `turns_at` on, classify the moving one as a spoon."""
    frame = int(image[0, 0, 0])
    rois = np.array(boxes_of(frame), np.int32)
    return Detections(
        boxes=rois.astype(np.float32),
        scores=np.full(len(rois), 0.9, np.float32),
        mask_scores=np.full(len(rois), 0.9, np.float32),
        class_ids=np.array([int(frame >= turns_at)] + [0] * (len(rois) - 1)),
        mask_rois=rois,
        masks=tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in rois),
        image_size=SIZE,
    )


def test_detections_with_the_true_ids_in_every_image_are_perfect(clip):
    config = TrackerConfig(track_hits=1)
    scores = evaluate_tracks(lambda: segment, clip(), config=config, rate=20.0)
    assert (scores.idf1, scores.mota, scores.id_switches, scores.fragmentations) == (1, 1, 0, 0)
    assert (scores.objects, scores.appearances, scores.images) == (2, 18, 10)


def test_a_change_of_id_in_the_middle_is_counted(clip):
    """Of 18 appearances, 5 of the moving object have its second id."""
    scores = evaluate_tracks(
        lambda: lambda image, seconds: segment(image, turns_at=5),
        clip(),
        config=TrackerConfig(track_hits=1),
        rate=20.0,
    )
    assert scores.id_switches == 1
    assert scores.idf1 == pytest.approx(2 * 13 / (18 + 18))


def test_images_before_an_id_is_assigned_count_as_missed(clip):
    scores = evaluate_tracks(
        lambda: segment, clip(), config=TrackerConfig(track_hits=3), rate=20.0
    )
    assert scores.id_switches == 0
    assert scores.mota == pytest.approx(1 - 4 / 18)
    assert scores.idf1 == pytest.approx(2 * 14 / (18 + 14))


def test_each_video_is_opened_and_its_images_have_their_stamps(clip):
    opened, seen = [], []

    def open_video():
        opened.append(len(seen))

        def found(image, seconds):
            seen.append((int(image[0, 0, 0]), seconds))
            return segment(image)

        return found

    evaluate_tracks(open_video, clip(), config=TrackerConfig(), rate=20.0)
    assert opened == [0]
    assert seen == [(frame, pytest.approx(frame / 20)) for frame in range(FRAMES)]


def test_nothing_found_scores_nothing(clip):
    scores = evaluate_tracks(
        lambda: lambda image, seconds: Detections.empty(SIZE),
        clip(),
        config=TrackerConfig(),
        rate=20.0,
    )
    assert (scores.idf1, scores.mota, scores.id_switches) == (0, 0, 0)


def test_annotations_without_identities_are_reported(clip):
    with pytest.raises(DatasetError, match="without track_id"):
        evaluate_tracks(lambda: segment, clip("track_id"), config=TrackerConfig(), rate=20.0)
