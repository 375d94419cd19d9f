"""Evaluate the accuracy and time of feature reuse and propagation on clips, in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks
from tqdm import tqdm

from yolact_ros.config import KeyframeConfig, PostprocessConfig
from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import ConfigError, DatasetError
from yolact_ros.evaluate.coco_tables import CocoTables
from yolact_ros.runtime.detections import KEYFRAME, Detections
from yolact_ros.runtime.output.entries import encode_rle
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.stream import Stream

FOREVER = 3600.0  # seconds; the frames of a clip carry no stamps here
SHOWN = PostprocessConfig().score_threshold  # J ignores detections with a lower mask score


@dataclass(frozen=True)
class VideoRow:
    """Holds the results of one configuration on clips; AP and J are in [0, 1], None if unknown.

    Attributes:
        interval: keyframe interval; 1 is the full pass on every frame.
        warp: how features are warped; the full pass, which warps none, appears once per warp.
            Empty for a model for single images.
        propagated_frames: images after each inference whose detections are propagated.
        mask_ap, mask_ap50, box_ap: AP on all frames.
        mask_ap_non_key: AP on the frames that are not keyframes.
        full_pass_ap_non_key: AP of the full pass on the same frames, for comparison.
        region_similarity: J of DAVIS, see `best_ious`; mean over frames and objects.
        mean_ms, keyframe_ms, non_keyframe_ms: mean time of all frames and of each type.
        relative_ms: `mean_ms` as a fraction of that of the full pass.
        relative_p50: the same from the medians of each type, which interruptions hardly affect;
            frames with propagated detections count as a separate type.
        frames: number of frames.
        keyframes: number of keyframes.
    """

    interval: int
    warp: str
    propagated_frames: int
    mask_ap: float | None
    mask_ap50: float | None
    box_ap: float | None
    mask_ap_non_key: float | None
    full_pass_ap_non_key: float | None
    region_similarity: float | None
    mean_ms: float
    keyframe_ms: float
    non_keyframe_ms: float | None
    relative_ms: float
    relative_p50: float
    frames: int
    keyframes: int


def evaluate_video(
    segmenter: Segmenter,
    clips: Sequence[Clip],
    *,
    intervals: Sequence[int] = (1,),
    warps: Sequence[str] = (),
    propagated_frames: Sequence[int] = (0,),
    limit: int | None = None,
) -> list[VideoRow]:
    """Run every configuration on every frame before continuing with the next frame.

    Their order rotates from frame to frame, so that other load on the machine affects all of them
    alike. The full pass always takes part.

    Args:
        segmenter: segmenter of any model; without graphs for video, `intervals` is 1.
        clips: clips annotated with the model's classes.
        intervals: keyframe intervals. A shorter one than propagation requires grows to it: with
            interval 1, every image is inferred or propagated.
        warps: warps of the model; all of them by default.
        propagated_frames: see `KeyframeConfig`.
        limit: number of frames to use from the start of each clip.

    Returns:
        For each warp and number of propagated frames one row per interval, in ascending order;
        interval 1 is always included.

    Raises:
        ConfigError: the model does not have a warp, or an interval is out of range.
        DatasetError: an image cannot be read.
    """
    warps = warps or segmenter.description.warps
    if not warps and max(intervals) > 1:
        raise ConfigError(
            f"Model {segmenter.description.model.name!r} was exported for single images. Export "
            "its checkpoint with --keyframes, or leave --intervals at 1 (--propagated-frames "
            "works with every model)."
        )
    class_ids = sorted({c for clip in clips for c in clip.dataset.category_ids})
    full = _Run(None, CocoTables(class_ids, segmenter.description.model.classes))
    runs = {
        (warp, count, interval): _Run(
            KeyframeConfig(
                keyframe_interval=interval,
                warp=warp,
                propagated_frames=count,
                change_threshold=1.0,  # only the interval decides
                max_feature_age=FOREVER,
            ),
            full.tables.alike(),
        )
        for warp in warps or ("auto",)
        for count in propagated_frames
        for interval in sorted({max(i, count + 1) for i in intervals} - {1})
    }
    everything = [full, *runs.values()]
    for run in everything:
        segmenter.warm_up(run.config)
    total = sum(min(len(clip), limit or len(clip)) for clip in clips)
    with tqdm(total=total, desc="evaluate", unit="frame", mininterval=0.5) as bar:
        first_id = 1
        for clip in clips:
            _run_clip(segmenter, clip, everything, limit=limit, first_id=first_id, bar=bar)
            first_id += len(clip)
    scoring = tqdm(everything, desc="score", unit="row", mininterval=0.5)
    summaries = {id(run): _summary(run, full) for run in scoring}
    rows = []
    for warp in warps or ("auto",):
        for count in propagated_frames:
            series = [(1, full)]
            series += [(i, run) for (w, m, i), run in runs.items() if (w, m) == (warp, count)]
            rows += [
                VideoRow(
                    interval=i,
                    warp=warp if warps else "",
                    propagated_frames=count,
                    **summaries[id(run)],
                )
                for i, run in series
            ]
    return rows


@dataclass
class _Run:
    """Accumulates the results of one configuration, or of the full pass without one."""

    config: KeyframeConfig | None
    tables: CocoTables
    ious: list[float] = field(default_factory=list)  # of the best mask of each true instance
    stream: Stream | None = None
    milliseconds: list[float] = field(default_factory=list)
    keyframe: list[bool] = field(default_factory=list)
    ran: list[bool] = field(default_factory=list)  # whether any graph did
    image_ids: list[int] = field(default_factory=list)

    def step(self, segmenter: Segmenter, image: np.ndarray) -> Detections:
        started = time.perf_counter()
        if self.stream is None:
            found = segmenter.segment(image)
        else:
            found = self.stream.detect(image)
        self.milliseconds.append((time.perf_counter() - started) * 1e3)
        self.keyframe.append(found.frame_type == KEYFRAME)
        self.ran.append(found.timings["inference"] > 0)
        return found


def _run_clip(
    segmenter: Segmenter,
    clip: Clip,
    runs: Sequence[_Run],
    *,
    limit: int | None,
    first_id: int,
    bar: tqdm,
) -> None:
    for run in runs:  # their tables share images and ground truth
        run.stream = segmenter.stream(run.config) if run.config else None
    for number, index in enumerate(clip.indices[:limit]):
        truth = clip.dataset.load(index)
        image_id = first_id + number
        annotations = clip.dataset.annotations(index)
        runs[0].tables.add_image(image_id, truth.image.shape, annotations)
        for turn in range(len(runs)):
            run = runs[(turn + number) % len(runs)]
            found = run.step(segmenter, truth.image)
            run.image_ids.append(image_id)
            run.tables.add_found(image_id, found)
            run.ious += best_ious(truth, found)
        bar.update()


def _summary(run: _Run, full: _Run) -> dict[str, Any]:
    mask = run.tables.score("segm")
    keyframe, times = np.array(run.keyframe), np.array(run.milliseconds)
    keys, others = times[keyframe], times[~keyframe]
    ran = np.array(run.ran)
    types = (keys, times[~keyframe & ran], times[~keyframe & ~ran])
    typical = sum(float(np.median(kind)) * len(kind) for kind in types if len(kind))
    between = [i for i, key in zip(run.image_ids, run.keyframe, strict=True) if not key]
    return {
        "mask_ap": mask.summary["ap"],
        "mask_ap50": mask.summary["ap50"],
        "box_ap": run.tables.score("bbox").summary["ap"],
        "mask_ap_non_key": run.tables.score("segm", between).summary["ap"] if between else None,
        "full_pass_ap_non_key": (
            full.tables.score("segm", between).summary["ap"] if between else None
        ),
        "region_similarity": float(np.mean(run.ious)) if run.ious else None,
        "mean_ms": float(times.mean()),
        "keyframe_ms": float(keys.mean()),
        "non_keyframe_ms": float(others.mean()) if between else None,
        "relative_ms": float(times.mean() / np.mean(full.milliseconds)),
        "relative_p50": typical / (len(times) * float(np.median(full.milliseconds))),
        "frames": len(times),
        "keyframes": len(keys),
    }


def best_ious(truth: Sample, found: Detections) -> list[float]:
    """Return the mask IoU of the best-fitting detection for each true instance.

    This is the J of DAVIS (Perazzi et al., CVPR 2016) of one frame. Classes are ignored, as are
    detections with a mask score below `SHOWN` and crowds. An instance without a detection counts
    as 0.
    """
    objects = np.flatnonzero(~truth.crowd)
    shown = np.flatnonzero(found.mask_scores >= SHOWN)
    if not len(objects) or not len(shown):
        return [0.0] * len(objects)
    size = found.image_size
    detected = [encode_rle(found.masks[i], found.mask_rois[i], size) for i in shown]
    true = [rle_masks.encode(np.asfortranarray(truth.masks[i])) for i in objects]
    ious = np.asarray(rle_masks.iou(detected, true, [0] * len(true)))
    best: list[float] = ious.reshape(len(detected), len(true)).max(axis=0).tolist()
    return best


@dataclass(frozen=True, eq=False)
class Clip:
    """Holds consecutive frames of one camera.

    Attributes:
        name: name of the clip in messages.
        dataset: the data set that holds the frames.
        indices: positions of the frames in the data set, in temporal order.
    """

    name: str
    dataset: CocoDataset
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)


def read_clips(
    paths: Sequence[Path], *, images: Path | None, classes: tuple[str, ...]
) -> list[Clip]:
    """Read the annotations of clips and check that their images exist.

    Args:
        paths: folders with `instances.json` and `images/`, or annotation files. A file without
            videos is one clip, in the order of image ids.
        images: image folder of annotation files; not needed for folders.
        classes: classes of the model.

    Raises:
        DatasetError: a file is missing, or there are no frames.
    """
    clips = []
    for path in paths:
        if path.is_dir():
            annotations, folder = path / "instances.json", path / "images"
        else:
            annotations, folder = path, images or path.parent
        dataset = CocoDataset(annotations, folder, classes=classes)
        dataset.check_files()
        videos = dataset.videos() or [list(range(len(dataset)))]
        clips += [
            Clip(f"{path} video {n}" if len(videos) > 1 else str(path), dataset, tuple(v))
            for n, v in enumerate(videos, start=1)
            if v
        ]
    if not clips:
        raise DatasetError(f"There are no frames to evaluate on in {', '.join(map(str, paths))}.")
    return clips
