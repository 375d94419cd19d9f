"""What was found in one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

KEYFRAME = "keyframe"  # every layer ran on this image
PARTIAL = "partial"  # deep features, or whole detections, were carried over from an earlier image


@dataclass(frozen=True, eq=False)
class Detections:
    """The N instances of one image, best class score first; N may be 0.

    Attributes:
        boxes: (N, 4) float32 x1 y1 x2 y2 in pixels of the source image, clipped to it.
        scores: (N,) float32 class scores.
        mask_scores: (N,) float32, class score times predicted mask IoU (YOLACT++); equal to
            `scores` for a network without mask re-scoring.
        class_ids: (N,) int64, 0-based foreground classes.
        mask_rois: (N, 4) int32 x1 y1 x2 y2, half-open, in pixels of the source image; where each
            mask lies. Empty (x1 == x2 or y1 == y2) for a box outside the image.
        masks: N arrays (y2 - y1, x2 - x1) bool, one for each region.
        image_size: (height, width) of the source image in pixels.
        frame_type: `keyframe` or `partial`.
        keyframe_stamp: seconds, stamp of the image that the deep features are from: for a
            keyframe its own; None if it had none.
        keyframe_reason: why an image of a stream is a keyframe, one of `keyframe.REASONS`; None
            if it is not, and for single images.
        track_ids: (N,) int64, numbers that objects keep from image to image (`runtime.tracking`),
            0 for those without one; None where nobody tracks.
        timings: milliseconds of `preprocess`, `inference` and `postprocess`.
    """

    boxes: np.ndarray
    scores: np.ndarray
    mask_scores: np.ndarray
    class_ids: np.ndarray
    mask_rois: np.ndarray
    masks: tuple[np.ndarray, ...]
    image_size: tuple[int, int]
    frame_type: str = KEYFRAME
    keyframe_stamp: float | None = None
    keyframe_reason: str | None = None
    track_ids: np.ndarray | None = None
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Hold the arrays against each other.

        Raises:
            ValueError: they disagree about N.
        """
        lengths = {
            name: len(getattr(self, name))
            for name in ("boxes", "scores", "mask_scores", "class_ids", "mask_rois", "masks")
        }
        if self.track_ids is not None:
            lengths["track_ids"] = len(self.track_ids)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Detections of different lengths: {lengths}.")

    @classmethod
    def empty(
        cls, image_size: tuple[int, int], *, timings: Mapping[str, float] | None = None
    ) -> Detections:
        """Nothing found in an image of (height, width) pixels."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            mask_scores=np.zeros(0, np.float32),
            class_ids=np.zeros(0, np.int64),
            mask_rois=np.zeros((0, 4), np.int32),
            masks=(),
            image_size=image_size,
            timings=timings or {},
        )

    def __len__(self) -> int:
        return len(self.scores)

    def full_mask(self, index: int) -> np.ndarray:
        """The mask of one instance on the whole source image, (height, width) bool."""
        mask = np.zeros(self.image_size, bool)
        x1, y1, x2, y2 = self.mask_rois[index]
        mask[y1:y2, x1:x2] = self.masks[index]
        return mask
