"""Reuse of features between keyframes: accuracy, steadiness and milliseconds, all in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from yolact_ros.config import KeyframeConfig
from yolact_ros.errors import ConfigError
from yolact_ros.evaluate.clips import Clip
from yolact_ros.evaluate.coco_tables import CocoTables
from yolact_ros.evaluate.stability import Stability, best_ious
from yolact_ros.runtime.detections import KEYFRAME, Detections
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.stream import Stream

FOREVER = 3600.0  # seconds; the frames of a clip carry no stamps here


@dataclass(frozen=True)
class VideoRow:
    """One way to run a model on clips; AP and stability in [0, 1], None where not known.

    Attributes:
        interval: every how many frames is a keyframe; 1 is the full pass on every frame.
        warp: how features moved; the full pass, which has none, is listed once with each warp.
        propagated_frames: images after each inference whose detections were propagated.
        mask_ap, mask_ap50, box_ap: on all frames.
        mask_ap_non_key: on the frames that were no keyframes.
        full_pass_ap_non_key: of the full pass on just these frames, to compare with.
        region_similarity: J of DAVIS, see `stability.best_ious`, the mean over frames and objects.
        temporal_stability: see `stability.Stability`; None without true motion.
        lost_share: the share of objects found in only one of two consecutive frames.
        mean_ms, keyframe_ms, non_keyframe_ms: mean of `Segmenter.segment` over all frames, and
            over each type.
        keyframe_p50_ms, non_keyframe_p50_ms: the medians of each type.
        relative_ms: `mean_ms` as a share of that of the full pass.
        relative_p50: the same by the medians of the types, which interruptions hardly touch;
            frames to which detections were moved count as a type of their own.
        frames: all frames.
        keyframes: how many of them were keyframes.
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
    temporal_stability: float | None
    lost_share: float | None
    mean_ms: float
    keyframe_ms: float
    non_keyframe_ms: float | None
    keyframe_p50_ms: float
    non_keyframe_p50_ms: float | None
    relative_ms: float
    relative_p50: float
    frames: int
    keyframes: int


def evaluate_video(
    segmenter: Segmenter,
    clips: Sequence[Clip],
    *,
    intervals: Sequence[int],
    warps: Sequence[str] = (),
    propagated_frames: Sequence[int] = (0,),
    change_threshold: float = 1.0,
    limit: int | None = None,
) -> list[VideoRow]:
    """Run all configurations on the same frames, one after another on each frame.

    Their order changes from frame to frame, so that whatever else the machine does hits all
    alike. The full pass always takes part.

    Args:
        segmenter: of a model with graphs for video.
        clips: annotated with the model's classes.
        intervals: keyframe intervals.
        warps: which of the model's warps; all of them by default.
        propagated_frames: see `KeyframeConfig`.
        change_threshold: see `KeyframeConfig`; 1 leaves the interval alone to decide.
        limit: use only so many frames of each clip, the first ones.

    Returns:
        For each warp and number of moved frames a row for each interval, ascending; 1 is always
        among them.

    Raises:
        ConfigError: the model does not have a warp, or an interval is out of range.
        DatasetError: an image cannot be read.
    """
    warps = warps or segmenter.description.warps
    if not warps and max(intervals) > 1:
        raise ConfigError(
            f"Model {segmenter.description.model.name!r} was exported for single images; export "
            "its checkpoint with --keyframes, or evaluate the checkpoint itself."
        )
    class_ids = sorted({c for clip in clips for c in clip.dataset.category_ids})
    full = _Run(None, CocoTables(class_ids, segmenter.description.model.classes))
    runs = {
        (warp, moved, interval): _Run(
            KeyframeConfig(
                keyframe_interval=interval,
                warp=warp,
                propagated_frames=moved,
                change_threshold=change_threshold,
                max_feature_age=FOREVER,
            ),
            full.tables.alike(),
        )
        for warp in warps
        for moved in propagated_frames
        for interval in sorted({*intervals} - {1})
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
    for warp in warps or ("none",):
        for moved in propagated_frames:
            series = [(1, full)]
            series += [(i, run) for (w, m, i), run in runs.items() if (w, m) == (warp, moved)]
            rows += [
                VideoRow(interval=i, warp=warp, propagated_frames=moved, **summaries[id(run)])
                for i, run in series
            ]
    return rows


@dataclass
class _Run:
    """One configuration and what has come out so far; None is the full pass on every frame."""

    config: KeyframeConfig | None
    tables: CocoTables
    ious: list[float] = field(default_factory=list)  # of the best mask of each true instance
    stability: Stability = field(default_factory=Stability)
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
    for run in runs:  # their tables have images and truth in common
        run.stream = segmenter.stream(run.config) if run.config else None
        run.stability.begin_clip()
    before = None
    for place, index in enumerate(clip.indices[:limit]):
        truth = clip.dataset.load(index)
        image_id = first_id + place
        runs[0].tables.add_image(image_id, (truth.image.shape[0], truth.image.shape[1]))
        runs[0].tables.add_truth(image_id, clip.dataset.annotations(index))
        tracked = len(truth.track_ids) == len(truth)
        motion = clip.motion(truth, before) if clip.motion and before is not None else None
        for turn in range(len(runs)):
            run = runs[(turn + place) % len(runs)]
            found = run.step(segmenter, truth.image)
            run.image_ids.append(image_id)
            run.tables.add_found(image_id, found)
            run.ious += best_ious(truth, found)
            if clip.motion and tracked:
                run.stability.add(truth, found, motion)
        before = truth
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
        "temporal_stability": run.stability.mean,
        "lost_share": run.stability.lost_share,
        "mean_ms": float(times.mean()),
        "keyframe_ms": float(keys.mean()),
        "non_keyframe_ms": float(others.mean()) if between else None,
        "keyframe_p50_ms": float(np.median(keys)),
        "non_keyframe_p50_ms": float(np.median(others)) if between else None,
        "relative_ms": float(times.mean() / np.mean(full.milliseconds)),
        "relative_p50": typical / (len(times) * float(np.median(full.milliseconds))),
        "frames": len(times),
        "keyframes": len(keys),
    }
