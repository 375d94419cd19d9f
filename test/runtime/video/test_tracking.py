from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from yolact_ros.config import TrackerConfig
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.video.tracking import Tracker, mask_iou, pairwise_box_iou

SIZE = (240, 320)


def discs(*places, class_ids=None, scores=None, size=SIZE, radius=15):
    """Return detections of discs with the centres (x, y), in pixels."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.hypot(y, x) <= radius
    rois, masks = [], []
    for centre in places:
        x1, y1 = (np.round(np.asarray(centre)) - radius).astype(int)
        whole = np.array([x1, y1, x1 + disc.shape[1], y1 + disc.shape[0]])
        region = np.clip(whole, 0, np.tile(size[::-1], 2))
        rois.append(region)
        left, top, right, bottom = region - [x1, y1, x1, y1]
        masks.append(disc[top:bottom, left:right])
    count = len(places)
    given = np.asarray([0.9] * count if scores is None else scores, np.float32)
    return Detections(
        boxes=np.asarray(rois, np.float32).reshape(-1, 4),
        scores=given,
        mask_scores=given,
        class_ids=np.asarray([0] * count if class_ids is None else class_ids, np.int64),
        mask_rois=np.asarray(rois, np.int32).reshape(-1, 4),
        masks=tuple(masks),
        image_size=size,
    )


def follow(tracker, frames, *, start=0.0, rate=20.0):
    """Return the track ids of each image."""
    return [tracker.update(f, start + i / rate).tolist() for i, f in enumerate(frames)]


def test_an_object_gets_its_id_in_the_third_image_and_keeps_it():
    frames = [discs((50 + 4 * i, 100)) for i in range(10)]
    assert follow(Tracker(TrackerConfig()), frames) == [[0], [0]] + [[1]] * 8


def test_images_without_objects_and_without_stamps_are_followed():
    tracker = Tracker(TrackerConfig(track_hits=1))
    ids = tracker.update(discs(), None)
    assert ids.shape == (0,) and ids.dtype == np.int64
    assert [tracker.update(discs((50 + 2 * i, 90)), None).tolist() for i in range(3)] == [[1]] * 3
    assert tracker.update(discs(), None).tolist() == []
    assert tracker.update(discs((58, 90)), None).tolist() == [1]


def test_an_object_keeps_its_id_while_another_one_hides_it():
    """Two objects of one class meet head on; only the front one is found while they overlap."""
    tracker = Tracker(TrackerConfig())
    ids = []
    for i in range(40):
        front, behind = (60 + 5 * i, 120), (260 - 5 * i, 120)
        visible = abs(front[0] - behind[0]) > 30
        ids.append(tracker.update(discs(front, *([behind] if visible else [])), i / 20).tolist())
    assert [1] in ids
    assert all(found in ([0, 0], [1, 2], [1]) for found in ids)
    assert ids[-1] == [1, 2]


def test_an_id_is_kept_for_the_configured_time():
    frames = [discs((100, 100))] * 4 + [discs()] * 10 + [discs((100, 100))] * 4
    kept = follow(Tracker(TrackerConfig(track_memory=0.6)), frames)
    assert kept[-1] == [1]
    lost = follow(Tracker(TrackerConfig(track_memory=0.4)), frames)
    assert lost[-4:] == [[0], [0], [2], [2]]


def test_tracks_end_even_if_the_stamp_is_constant():
    tracker = Tracker(TrackerConfig(track_hits=1, track_memory=1.0))
    for step in range(200):
        tracker.update(discs((20 + 7 * (step * 13 % 17), 20 + 5 * (step * 7 % 11))), 5.0)
    for _ in range(40):
        tracker.update(discs(), 5.0)
    assert not tracker._tracks


def test_an_id_never_goes_to_another_class_or_to_a_weak_detection():
    tracker = Tracker(TrackerConfig())
    ids = follow(tracker, [discs((100, 100), class_ids=[0])] * 4)
    ids += follow(tracker, [discs((100, 100), class_ids=[1])] * 3, start=0.2)
    assert ids[-1] == [2]
    weak = [discs((200, 50), scores=[0.35])] * 5
    assert follow(Tracker(TrackerConfig()), weak) == [[0]] * 5
    # What has its number keeps it, however weak.
    faded = [discs((200, 50))] * 3 + weak
    assert follow(Tracker(TrackerConfig()), faded)[-1] == [1]


def test_a_mistake_in_a_single_image_gets_no_id():
    frames = [discs((100, 100)), discs()] * 5
    assert follow(Tracker(TrackerConfig()), frames) == [[0], []] * 5


def test_all_ids_are_new_after_time_jumps_back_or_the_size_changes():
    tracker = Tracker(TrackerConfig())
    frames = [discs((100, 100))] * 4
    assert follow(tracker, frames, start=10.0)[-1] == [1]
    assert follow(tracker, frames, start=2.0) == [[0], [0], [2], [2]]
    larger = [discs((100, 100), size=(480, 640))] * 4
    assert follow(tracker, larger, start=3.0)[-1] == [3]
    tracker.reset()
    assert follow(tracker, larger, start=4.0)[-1] == [4]


def test_irregular_times_do_not_break_tracks():
    tracker = Tracker(TrackerConfig())
    times = np.cumsum([0.05, 0.05, 0.05, 0.05, 0.2, 0.05, 0.25, 0.05, 0.3])
    ids = [tracker.update(discs((40 + 200 * t, 100)), t).tolist() for t in times]
    assert ids[3:] == [[1]] * 6


def test_a_new_object_starts_with_the_motion_of_the_camera():
    """All objects accelerate; one appears late, before its own motion is known."""
    tracker = Tracker(TrackerConfig(track_iou=0.5))
    way = np.cumsum(np.minimum(2.0 * np.arange(18), 16.0))
    ids = []
    for i, x in enumerate(way):
        places = [(20 + x, 40), (20 + x, 100)] + ([(x, 170)] if i > 9 else [])
        ids.append(tracker.update(discs(*places), i / 20).tolist())
    assert ids[-1] == [1, 2, 3]


def test_a_crowd_with_noise_and_misses_keeps_its_identities():
    """Twelve objects of two classes move straight; a tenth of them is missed in each image."""
    random = np.random.default_rng(5)
    starts = random.uniform((40, 40), (280, 200), (12, 2))
    speeds = random.normal(0, 1.0, (12, 2))
    tracker = Tracker(TrackerConfig())
    numbers = [Counter() for _ in range(12)]
    for i in range(60):
        seen = np.flatnonzero(random.random(12) > 0.1)
        places = (starts + speeds * i)[seen] + random.normal(0, 1.0, (len(seen), 2))
        ids = tracker.update(discs(*places, class_ids=seen % 2), i / 20)
        for one, number in zip(seen, ids.tolist(), strict=True):
            numbers[one][number] += 1
    main = [counts.most_common(1)[0] for counts in numbers]
    assert len({number for number, _ in main}) == 12
    assert sum(count for _, count in main) > 0.9 * sum(sum(counts.values()) for counts in numbers)


def test_overlaps_equal_counted_pixels():
    random = np.random.default_rng(3)
    for _ in range(20):
        sizes = random.integers(0, 12, (2, 2))
        origins = random.integers(-8, 8, (2, 2))
        masks = [random.random(tuple(size)) > 0.4 for size in sizes]
        canvas = np.zeros((2, 40, 40), bool)
        for layer, mask, (x, y) in zip(canvas, masks, origins, strict=True):
            layer[y + 10 : y + 10 + mask.shape[0], x + 10 : x + 10 + mask.shape[1]] = mask
        union = (canvas[0] | canvas[1]).sum()
        expected = (canvas[0] & canvas[1]).sum() / union if union else 0.0
        assert mask_iou(masks[0], origins[0], masks[1], origins[1]) == pytest.approx(expected)
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]], float)
    expected = [[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(pairwise_box_iou(boxes, boxes), expected)
    assert pairwise_box_iou(boxes[:0], boxes).shape == (0, 3)


def test_a_value_out_of_range_is_reported():
    with pytest.raises(ConfigError, match="TrackerConfig.track_hits is 0"):
        TrackerConfig(track_hits=0)
