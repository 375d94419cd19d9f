"""Track objects by mask-IoU association with a constant-velocity model.

A track is an object seen before: its box with a velocity (a g-h filter, the steady state of a
constant-velocity Kalman filter) and its last mask. In each image the mask is shifted to the
predicted box, and detections and tracks of the same class are paired greedily, largest overlap
first (as in SORT, Bewley et al., ICIP 2016, with masks instead of boxes).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from yolact_ros.config import TrackerConfig
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.postprocess import iou

POSITION_GAIN = 0.8  # boxes of a network scatter less than objects move between two images
VELOCITY_GAIN = 0.5
UNSTAMPED_S = 1 / 30  # assumed time between two images without stamps


@dataclass(eq=False)
class Track:
    """Holds the state of one tracked object.

    Attributes:
        class_id: class id of all its detections.
        box: (4,) float64 x1 y1 x2 y2 in pixels, at the time of the newest image.
        velocity: (2,) float64 x y velocity of the box's centre in pixels per second.
        mask: (h, w) bool, last seen mask.
        origin: (2,) float64 x y in pixels: the top left pixel of `mask`, moving with the box.
        seen: number of images in which it was detected.
        unseen_s: seconds since it was last seen.
        number: track id; 0 until confirmed.
    """

    class_id: int
    box: np.ndarray
    velocity: np.ndarray
    mask: np.ndarray
    origin: np.ndarray
    seen: int = 1
    unseen_s: float = 0.0
    number: int = 0

    def move(self, seconds: float) -> None:
        """Extrapolate with constant velocity."""
        step = self.velocity * seconds
        self.box = (self.box.reshape(2, 2) + step).reshape(4)
        self.origin = self.origin + step
        self.unseen_s += seconds

    def see(self, box: np.ndarray, mask: np.ndarray, origin: np.ndarray) -> None:
        """Correct the state with the matched detection."""
        error = box - self.box
        self.box = self.box + POSITION_GAIN * error
        if self.unseen_s > 0:
            drift = (error[:2] + error[2:]) / 2
            self.velocity = self.velocity + VELOCITY_GAIN * drift / self.unseen_s
        self.mask, self.origin = mask, origin.astype(np.float64)
        self.seen += 1
        self.unseen_s = 0.0


class Tracker:
    """Tracks the objects of one stream of images."""

    def __init__(self, config: TrackerConfig) -> None:
        self.config = config
        self._tracks: list[Track] = []
        self._last_number = 0
        self._stamp: float | None = None
        self._image_size: tuple[int, int] | None = None

    def reset(self) -> None:
        """Forget all objects; their ids are not reused."""
        self._tracks = []
        self._stamp = None
        self._image_size = None

    def update(self, detections: Detections, stamp: float | None) -> np.ndarray:
        """Match the detections of the next image with known objects.

        A stamp before the previous one, or a change of image size, starts a new stream.

        Args:
            detections: detections of that image.
            stamp: capture time in seconds; None if unknown.

        Returns:
            (N,) int64 track ids, 0 for objects that are not confirmed yet.
        """
        backwards = stamp is not None and self._stamp is not None and stamp < self._stamp
        if backwards or detections.image_size != self._image_size:
            self.reset()
        known = stamp is not None and self._stamp is not None
        seconds = stamp - self._stamp if known else 0.0  # type: ignore[operator]
        seconds = seconds or UNSTAMPED_S  # even with constant stamps, tracks must end
        self._stamp, self._image_size = stamp, detections.image_size
        missing = [track for track in self._tracks if track.unseen_s > 0]
        for track in self._tracks:
            track.move(seconds)
        lost = {track for track in missing if not self._lives(track)}
        self._tracks = [track for track in self._tracks if track not in lost]
        owners = self._associate(detections)
        flow = common_velocity(track for track in owners if track)
        for index, owner in enumerate(owners):
            box = detections.boxes[index].astype(np.float64)
            mask, origin = detections.masks[index], detections.mask_rois[index, :2]
            if owner is not None:
                owner.see(box, mask, origin)
            elif detections.mask_scores[index] >= self.config.track_birth_score:
                class_id = int(detections.class_ids[index])
                owner = Track(class_id, box, flow, mask, origin.astype(np.float64))
                self._tracks.append(owner)
                owners[index] = owner
            if owner is not None and not owner.number and owner.seen >= self.config.track_hits:
                self._last_number += 1
                owner.number = self._last_number
        self._tracks = [track for track in self._tracks if self._lives(track)]
        return np.array([track.number if track else 0 for track in owners], np.int64)

    def _lives(self, track: Track) -> bool:
        # A track that is missed before it is confirmed was a false detection.
        return track.unseen_s <= (self.config.track_memory if track.number else 0.0)

    def _associate(self, detections: Detections) -> list[Track | None]:
        """Return the track that each detection belongs to."""
        owners: list[Track | None] = [None] * len(detections)
        pairs = sorted(self._overlaps(detections), key=lambda pair: -pair[0])
        taken: set[int] = set()
        for _, index, number in pairs:
            if owners[index] is None and number not in taken:
                owners[index] = self._tracks[number]
                taken.add(number)
        return owners

    def _overlaps(self, detections: Detections) -> Iterable[tuple[float, int, int]]:
        """Yield overlap, detection and track of all pairs that may be the same object."""
        if not len(detections) or not self._tracks:
            return
        boxes = np.array([track.box for track in self._tracks])
        classes = np.array([track.class_id for track in self._tracks])
        shared = detections.class_ids[:, None] == classes
        near = (
            pairwise_box_iou(detections.boxes.astype(np.float64), boxes) >= self.config.track_iou
        )
        for index, number in np.argwhere(shared & near):
            track = self._tracks[number]
            overlap = mask_iou(
                detections.masks[index],
                detections.mask_rois[index, :2],
                track.mask,
                np.rint(track.origin).astype(int),
            )
            if overlap >= self.config.track_iou:
                yield overlap, int(index), int(number)


def common_velocity(tracks: Iterable[Track]) -> np.ndarray:
    """Return the (2,) median velocity, the camera's motion, as the best guess for a new object."""
    known = [track.velocity for track in tracks if track.seen > 2]
    return np.median(known, axis=0) if known else np.zeros(2)


def pairwise_box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the (N, M) IoU of boxes (N, 4) and (M, 4) x1 y1 x2 y2; 0 for boxes without area."""
    overlaps: np.ndarray = np.nan_to_num(iou(first.T[:, :, None], second.T[:, None]))
    return overlaps


def mask_iou(
    first: np.ndarray, first_origin: np.ndarray, second: np.ndarray, second_origin: np.ndarray
) -> float:
    """Compute the IoU of two masks (h, w) bool; `origin` is x y of the top left pixel."""
    x, y = np.subtract(second_origin, first_origin).tolist()
    (height, width), (other_height, other_width) = first.shape, second.shape
    shared = first[max(y, 0) : max(y + other_height, 0), max(x, 0) : max(x + other_width, 0)]
    other = second[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    inside = int(np.count_nonzero(shared & other))
    union = int(np.count_nonzero(first)) + int(np.count_nonzero(second)) - inside
    return inside / union if union else 0.0
