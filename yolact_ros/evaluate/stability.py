"""How steadily the same object is masked from one frame of a clip to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.config import PostprocessConfig
from yolact_ros.datasets.coco import Sample
from yolact_ros.evaluate.true_motion import Motion
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.rle import encode_rle

SHOWN = PostprocessConfig().score_threshold  # detections below it are not shown, and not counted
MATCH_IOU = 0.5  # mask IoU with a true instance from which on it counts as found


class Stability:
    """Follows the detections of one configuration through clips.

    The masks of one object in two consecutive frames are compared after the first one has been
    moved by the true motion, where both frames show the place. An object that was found in only
    one of the two counts 0; in neither, nothing; so does one that is in only one of the two
    pictures.
    """

    def __init__(self) -> None:
        self._ious: list[float] = []
        self._lost = 0
        self.begin_clip()

    def begin_clip(self) -> None:
        """Forget the last frame."""
        self._seen: set[int] | None = None
        self._masks: dict[int, np.ndarray] = {}

    def add(self, truth: Sample, found: Detections, motion: Motion | None) -> None:
        """Take the next frame.

        Args:
            truth: with track ids.
            found: detections.
            motion: from this frame to the last one; None for the first frame of a clip.
        """
        masks = match_tracks(truth, found)
        seen = set(truth.track_ids[~truth.crowd].tolist())
        if self._seen is not None and motion is not None:
            for track in seen & self._seen:
                before, now = self._masks.get(track), masks.get(track)
                if before is not None and now is not None:
                    self._ious.append(_iou(motion.carry(before), now & motion.visible))
                elif before is not None or now is not None:
                    self._ious.append(0.0)
                    self._lost += 1
        self._seen, self._masks = seen, masks

    @property
    def mean(self) -> float | None:
        """Mean IoU, 0 to 1; None if there was nothing to compare."""
        return float(np.mean(self._ious)) if self._ious else None

    @property
    def lost_share(self) -> float | None:
        """Share of the pairs in which the object was found in only one frame; None as in `mean`.

        What comes and goes flickers; the others differ in the shape of their masks.
        """
        return self._lost / len(self._ious) if self._ious else None


def match_tracks(truth: Sample, found: Detections) -> dict[int, np.ndarray]:
    """Find the detection of each true instance.

    In the order of their mask scores, detections take the free true instance of their class with
    the largest mask IoU, from `MATCH_IOU` on, as COCOeval does. Crowds take no part.

    Returns:
        By track id, the detected mask (H, W) bool.
    """
    objects = np.flatnonzero(~truth.crowd)
    shown = np.flatnonzero(found.mask_scores >= SHOWN)
    if not len(objects) or not len(shown):
        return {}
    ious = mask_ious(found, shown, [truth.masks[i] for i in objects])
    ious[found.class_ids[shown][:, None] != truth.class_ids[objects][None, :]] = 0
    matched: dict[int, np.ndarray] = {}
    for row in np.argsort(-found.mask_scores[shown], kind="stable"):
        column = int(ious[row].argmax())
        if ious[row, column] >= MATCH_IOU:
            matched[int(truth.track_ids[objects[column]])] = found.full_mask(int(shown[row]))
            ious[:, column] = 0
    return matched


def best_ious(truth: Sample, found: Detections) -> list[float]:
    """For each true instance, the mask IoU of the detection that fits it best.

    This is the J of DAVIS (Perazzi et al., CVPR 2016) of one frame. Classes play no part, and
    neither do detections that are not shown. An instance without a detection counts 0; crowds
    take no part.
    """
    objects = np.flatnonzero(~truth.crowd)
    shown = np.flatnonzero(found.mask_scores >= SHOWN)
    if not len(shown):
        return [0.0] * len(objects)
    if not len(objects):
        return []
    ious = mask_ious(found, shown, [truth.masks[i] for i in objects])
    best: list[float] = ious.max(axis=0).tolist()
    return best


def mask_ious(found: Detections, rows: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Mask IoU of the detections `rows` with each of (H, W) true masks: (R, N) float64."""
    size = found.image_size
    detected = [encode_rle(found.masks[i], found.mask_rois[i], size) for i in rows]
    true = [rle_masks.encode(np.asfortranarray(mask)) for mask in masks]
    ious: np.ndarray = np.asarray(rle_masks.iou(detected, true, [0] * len(true)), np.float64)
    return ious.reshape(len(detected), len(true))


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0
