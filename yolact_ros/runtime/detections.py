"""Hold the instances of one image: arrays for numbers, `Instance` objects for reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, overload

import numpy as np

KEYFRAME = "keyframe"  # every layer ran on this image
PARTIAL = "partial"  # it reuses deep features or detections of an earlier image
SHOWN_INSTANCES = 5  # by `repr`
ARRAYS = ("boxes", "scores", "mask_scores", "class_ids", "mask_rois")  # one row per instance


@dataclass(frozen=True, eq=False)
class Instance:
    """Describes one instance of an image.

    Attributes:
        class_id: index into the model's list of classes; messages and files count from 1 instead
            (`Detections.labels`).
        class_name: name of the class; empty if the detections have no names.
        score: class score.
        mask_score: class score times predicted mask IoU; `score` without mask re-scoring.
        box: (4,) float32 x1 y1 x2 y2 in pixels of the source image.
        mask_roi: (4,) int32 x1 y1 x2 y2, half-open, in pixels: the region that `crop` covers.
        crop: (y2 - y1, x2 - x1) bool, the mask inside its region.
        image_size: (height, width) of the source image in pixels.
        track_id: id of the object within its stream, 0 until confirmed; None if untracked.
    """

    class_id: int
    class_name: str
    score: float
    mask_score: float
    box: np.ndarray
    mask_roi: np.ndarray
    crop: np.ndarray = field(repr=False)
    image_size: tuple[int, int]
    track_id: int | None = None

    @property
    def mask(self) -> np.ndarray:
        """Return the (height, width) bool mask on the whole source image; built on each access."""
        mask = np.zeros(self.image_size, bool)
        x1, y1, x2, y2 = self.mask_roi
        mask[y1:y2, x1:x2] = self.crop
        return mask


@dataclass(frozen=True, eq=False)
class Detections:
    """Holds the N instances of one image, best class score first; N may be 0. Immutable.

    Iteration yields `Instance` objects. An int index returns one of them; a slice, a list of
    indices or a boolean array returns `Detections` of those.

    Attributes:
        boxes: (N, 4) float32 x1 y1 x2 y2 in pixels of the source image, clipped to it.
        scores: (N,) float32 class scores.
        mask_scores: (N,) float32, class score times predicted mask IoU (YOLACT++); equal to
            `scores` for a network without mask re-scoring.
        class_ids: (N,) int64, indices into the model's list of classes. Messages, images and files
            use `labels` instead.
        mask_rois: (N, 4) int32 x1 y1 x2 y2, half-open, in pixels of the source image: the region
            of each mask. Empty (x1 == x2 or y1 == y2) for a box outside the image.
        masks: N arrays (y2 - y1, x2 - x1) bool, one for each region.
        image_size: (height, width) of the source image in pixels.
        frame_type: `keyframe` or `partial`.
        keyframe_stamp: seconds, stamp of the image that the deep features come from (its own for
            a keyframe); None if that image had none.
        keyframe_source: the `source` argument of `Stream.segment` for that image.
        keyframe_reason: why an image of a stream is a keyframe (`runtime.video.keyframes`); None
            if it is not, and for single images.
        track_ids: (N,) int64 ids that objects keep from image to image, 0 until confirmed; None
            where tracking is off.
        class_names: name of each class of the model; may be empty.
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
    keyframe_source: Any = None
    keyframe_reason: str | None = None
    track_ids: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the lengths of the arrays agree.

        Raises:
            ValueError: the lengths differ.
        """
        lengths = {name: len(getattr(self, name)) for name in (*ARRAYS, "masks")}
        if self.track_ids is not None:
            lengths["track_ids"] = len(self.track_ids)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The arrays of the detections have different lengths: {lengths}.")

    @classmethod
    def empty(
        cls, image_size: tuple[int, int], *, timings: Mapping[str, float] | None = None
    ) -> Detections:
        """Return zero instances for an image of (height, width) pixels."""
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

    def __repr__(self) -> str:
        height, width = self.image_size
        shown = [f"{i.class_name or i.class_id} {i.score:.2f}" for i in self[:SHOWN_INSTANCES]]
        if len(self) > len(shown):
            shown.append("...")
        instances = f"{len(self)} instances, {width}x{height}"
        return f"Detections({instances}{': ' if shown else ''}{', '.join(shown)})"

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Instance]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, key: int) -> Instance: ...

    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> Detections: ...

    def __getitem__(self, key: int | slice | Sequence[int] | np.ndarray) -> Instance | Detections:
        """Return one instance, or the detections selected by a slice, indices or a bool array.

        Raises:
            IndexError: an index is out of range, or a boolean array has the wrong length.
        """
        if isinstance(key, (int, np.integer)):
            class_id = int(self.class_ids[key])
            return Instance(
                class_id=class_id,
                class_name=self.class_names[class_id] if self.class_names else "",
                score=float(self.scores[key]),
                mask_score=float(self.mask_scores[key]),
                box=self.boxes[key],
                mask_roi=self.mask_rois[key],
                crop=self.masks[key],
                image_size=self.image_size,
                track_id=None if self.track_ids is None else int(self.track_ids[key]),
            )
        if not isinstance(key, slice):
            key = np.asarray(key)
            key = key.astype(np.int64) if not key.size and key.dtype != bool else key
        indices = np.arange(len(self))[key]
        return replace(
            self,
            **{name: getattr(self, name)[indices] for name in ARRAYS},
            masks=tuple(self.masks[i] for i in indices),
            track_ids=None if self.track_ids is None else self.track_ids[indices],
        )

    def with_classes(self, names: Iterable[str]) -> Detections:
        """Return the detections of the named classes.

        Raises:
            ValueError: the model does not have a class of that name.
        """
        wanted = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in wanted if name not in self.class_names]
        if unknown:
            raise ValueError(
                f"No class is named {', '.join(map(repr, unknown))}; the model has: "
                f"{', '.join(self.class_names) or 'no class names'}."
            )
        ids = [self.class_names.index(name) for name in wanted]
        return self[np.isin(self.class_ids, ids)]

    @property
    def labels(self) -> np.ndarray:
        """Return (N,) int64 class ids as in messages, images and files: 1 is the first class.

        0 is the background in images, so `class_names[label - 1]` is the name of a class.
        """
        labels: np.ndarray = self.class_ids + 1
        return labels

    @cached_property
    def best_first(self) -> list[int]:
        """Return indices in descending order of the mask scores, as in every message.

        Where masks overlap in an image, the first ones come out on top.
        """
        return np.argsort(-self.mask_scores, kind="stable").tolist()

    def to_supervision(self) -> Any:
        """Convert to `supervision.Detections`, with full masks (N, height, width).

        Raises:
            ImportError: `supervision` is not installed.
        """
        import supervision

        masks = np.zeros((len(self), *self.image_size), bool)
        for mask, crop, (x1, y1, x2, y2) in zip(masks, self.masks, self.mask_rois, strict=True):
            mask[y1:y2, x1:x2] = crop
        data: dict[str, Any] = {"mask_score": self.mask_scores}
        if self.class_names:
            names = np.array(self.class_names, dtype=np.str_)
            data["class_name"] = names[self.class_ids]
        return supervision.Detections(
            xyxy=self.boxes,
            mask=masks,
            confidence=self.scores,
            class_id=self.class_ids,
            tracker_id=self.track_ids,
            data=data,
        )
