"""Compute tracking metrics (IDF1, identity switches, MOTA) on videos with motmetrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from yolact_ros.config import TrackerConfig
from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.video.tracking import Tracker

MATCH_IOU = 0.5  # minimum mask IoU of a detection with the object


@dataclass(frozen=True)
class TrackScores:
    """Holds tracking metrics over all videos; fractions are in [0, 1].

    Attributes:
        idf1: 2 x correct / (true + detected), where a detection is correct if it has the track id
            that fits the object best over the whole video (Ristani et al., ECCV 2016).
        id_switches: number of times that the track id of an object changed.
        fragmentations: number of times that an object was lost and found again.
        mota: 1 - (missed + wrong + switched) / true (CLEAR MOT).
        objects: number of true objects.
        appearances: number of true objects, summed over all images.
        images: number of images in all videos.
    """

    idf1: float
    id_switches: int
    fragmentations: int
    mota: float
    objects: int
    appearances: int
    images: int


# Our name -> name in motmetrics.
METRICS = {
    "idf1": "idf1",
    "id_switches": "num_switches",
    "fragmentations": "num_fragmentations",
    "mota": "mota",
    "objects": "num_unique_objects",
    "appearances": "num_objects",
}


def evaluate_tracks(
    open_video: Callable[[], Callable[[np.ndarray, float], Detections]],
    dataset: CocoDataset,
    *,
    config: TrackerConfig,
    rate: float,
) -> TrackScores:
    """Segment and track videos, and compare track ids with true identities.

    Classes are ignored: an object is detected if a mask with a track id overlaps it sufficiently.

    Args:
        open_video: begins a video and returns a function that detects on its images in order,
            given an image (H, W, 3) uint8 BGR and the seconds since the start of the video.
        dataset: annotations with `track_id`; without videos, all images form one video.
        config: settings of the tracker.
        rate: images per second of the videos.

    Raises:
        DatasetError: images are missing or cannot be read, or annotations have no `track_id`.
    """
    import motmetrics

    dataset.check_files()
    videos = dataset.videos() or [list(range(len(dataset)))]
    accounts = []
    with tqdm(total=len(dataset), desc="track", unit="image", mininterval=0.5) as bar:
        for frames in videos:
            segment = open_video()
            tracker, account = Tracker(config), motmetrics.MOTAccumulator(auto_id=True)
            for number, index in enumerate(frames):
                sample = dataset.load(index)
                if len(sample.track_ids) != len(sample):
                    raise DatasetError(
                        f"{dataset.annotations_path} has annotations without track_id; tracks "
                        "are evaluated on videos with identities (yolact simulate clip)."
                    )
                seconds = number / rate
                found = segment(sample.image, seconds)
                track_ids = tracker.update(found, seconds)
                kept = np.flatnonzero(track_ids)
                account.update(
                    sample.track_ids.tolist(),
                    track_ids[kept].tolist(),
                    _distances(sample, found)[:, kept],
                )
                bar.update()
            accounts.append(account)
    table = motmetrics.metrics.create().compute_many(
        accounts, metrics=list(METRICS.values()), generate_overall=True
    )
    row = table.loc["OVERALL"]
    values = {ours: row[theirs].item() for ours, theirs in METRICS.items()}
    counts = {name: int(values[name]) for name in values if name not in ("idf1", "mota")}
    return TrackScores(**{**values, **counts}, images=len(dataset))


def _distances(sample: Sample, found: Detections) -> np.ndarray:
    """Return 1 - mask IoU of N true objects and M detections; NaN below `MATCH_IOU`."""
    distances = np.full((len(sample), len(found)), np.nan)
    truth = np.asarray(sample.masks, bool)
    areas = truth.sum(axis=(1, 2))
    for column, (mask, roi) in enumerate(zip(found.masks, found.mask_rois, strict=True)):
        x1, y1, x2, y2 = roi
        inside = np.count_nonzero(truth[:, y1:y2, x1:x2] & mask, axis=(1, 2))
        union = np.maximum(areas + np.count_nonzero(mask) - inside, 1)
        same = inside >= MATCH_IOU * union
        distances[same, column] = 1 - inside[same] / union[same]
    return distances
