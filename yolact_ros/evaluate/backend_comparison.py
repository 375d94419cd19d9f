"""Compare all libraries and precisions of this machine on one model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm import tqdm

from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.errors import BackendError, ConfigError
from yolact_ros.evaluate.coco_map import evaluate_dataset
from yolact_ros.evaluate.speed import WARM_UP, Times
from yolact_ros.runtime.backends.open import candidates
from yolact_ros.runtime.bundle import Bundle
from yolact_ros.runtime.detections import Detections, Instance
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.video.tracking import mask_iou

MATCH_IOU = 0.5  # two masks above this are the same object

# Limits for the choice of `backend: auto`: the loss of mask AP or, without annotations, the
# agreement with float32.
MAX_AP_LOSS = 0.005
MIN_AGREEMENT = 0.98
MIN_GAIN = 0.03  # a smaller gain is noise


@dataclass(frozen=True)
class ComparisonRow:
    """Holds the results of one way to run a model.

    Attributes:
        model: name or path that the user gave.
        config: library, device, precision and threads.
        weights: `fp32`, or `int8` for a quantized bundle.
        times: milliseconds of `Segmenter.segment`.
        ratio: median time relative to the first row with as many threads.
        agreement: panoptic quality (Kirillov et al. 2019, equation 1, all classes together) of the
            detections relative to those of the first row, 0 to 1.
        mask_ap: COCO mask AP, 0 to 1, or None if not measured.
    """

    model: str
    config: BackendConfig
    weights: str
    times: Times
    ratio: float
    agreement: float
    mask_ap: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Holds the results of a comparison, with a message for each way that failed."""

    rows: tuple[ComparisonRow, ...]
    failures: tuple[str, ...]


def compare_backends(
    models: Mapping[str, Path],
    images: Iterable[np.ndarray],
    *,
    frames: int,
    threads: Sequence[int],
    postprocess: PostprocessConfig,
) -> Comparison:
    """Segment each image in every way, in an order that changes from image to image.

    This way, other load on the machine affects all ways equally.

    Args:
        models: folders of bundles by name, with equal classes. The first row is the first bundle
            on ONNX Runtime in float32.
        images: (H, W, 3) uint8 BGR, at least `frames + WARM_UP`.
        frames: number of images to measure.
        threads: numbers of CPU threads, measured in turn.
        postprocess: thresholds and limits.

    Raises:
        BundleError: a model is not a bundle, or is incomplete.
        ConfigError: the classes differ.
        BackendError: every way failed.
    """
    bundles = [(name, Bundle.open(folder)) for name, folder in models.items()]
    if len({bundle.description.model.classes for _, bundle in bundles}) > 1:
        raise ConfigError("The bundles have different classes; compare bundles of one model.")
    ways = [(name, bundle, way) for name, bundle in bundles for way in candidates(bundle)]
    chosen = list(islice(images, frames + WARM_UP))
    rows: list[ComparisonRow] = []
    failures: dict[str, None] = {}
    for count in threads:
        with ExitStack() as stack:
            running = []
            for name, bundle, way in ways:
                config = replace(way, threads=count)
                try:
                    segmenter = Segmenter.open(
                        bundle.folder, backend=config, postprocess=postprocess
                    )
                    stack.enter_context(segmenter)
                    segmenter.warm_up()
                except BackendError as error:
                    failures[f"{name}: {error}"] = None
                    continue
                running.append((name, bundle, config, segmenter))
            rows += _measure(running, chosen)
    if not rows:
        raise BackendError(" ".join(failures))
    return Comparison(tuple(rows), tuple(failures))


def _measure(
    running: Sequence[tuple[str, Bundle, BackendConfig, Segmenter]], images: Sequence[np.ndarray]
) -> list[ComparisonRow]:
    times: list[list[float]] = [[] for _ in running]
    scores: list[list[tuple[float, float]]] = [[] for _ in running]
    for number, image in enumerate(tqdm(images, desc="compare", unit="image", mininterval=0.5)):
        found: dict[int, Detections] = {}
        for turn in range(len(running)):
            way = (turn + number) % len(running)
            started = perf_counter()
            found[way] = running[way][3].segment(image)
            if number >= WARM_UP:
                times[way].append((perf_counter() - started) * 1e3)
        for way in found:
            scores[way].append(matched_iou(found[0], found[way]))
    rows = []
    for (name, bundle, config, _), way_times, way_scores in zip(
        running, times, scores, strict=True
    ):
        matched, objects = np.sum(way_scores, axis=0)
        rows.append(
            ComparisonRow(
                model=name,
                config=config,
                weights=bundle.description.precision,
                times=Times.of(way_times),
                ratio=float(np.median(way_times) / np.median(times[0])),
                agreement=float(matched / objects) if objects else 1.0,
            )
        )
    return rows


def with_mask_ap(
    rows: Sequence[ComparisonRow],
    models: Mapping[str, Path],
    dataset: CocoDataset,
    postprocess: PostprocessConfig,
) -> list[ComparisonRow]:
    """Measure the mask AP of each row, once for all numbers of threads.

    Args:
        rows: rows from `compare_backends`.
        models: folders of the bundles by name.
        dataset: data set with the classes of the model.
        postprocess: thresholds and limits.
    """
    known: dict[tuple[str, BackendConfig], float | None] = {}
    for row in rows:
        way = row.model, replace(row.config, threads=0)
        if way not in known:
            with Segmenter.open(
                models[row.model], backend=way[1], postprocess=postprocess
            ) as segmenter:
                known[way] = evaluate_dataset(segmenter.segment, dataset).mask.summary["ap"]
    return [replace(r, mask_ap=known[r.model, replace(r.config, threads=0)]) for r in rows]


def matched_iou(first: Detections, second: Detections) -> tuple[float, float]:
    """Return the sum of the mask IoUs of matched objects, and the mean number of objects.

    Objects match if they have equal classes and an IoU above `MATCH_IOU`; best pairs first.
    """

    def iou(a: Instance, b: Instance) -> float:
        if not a.crop.any() and not b.crop.any():
            return 1.0
        return mask_iou(a.crop, a.mask_roi[:2], b.crop, b.mask_roi[:2])

    pairs = [
        (iou(a, b), i, j)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if a.class_id == b.class_id
    ]
    total, free = 0.0, (set(range(len(first))), set(range(len(second))))
    for overlap, i, j in sorted(pairs, reverse=True):
        if overlap > MATCH_IOU and i in free[0] and j in free[1]:
            total += overlap
            free[0].remove(i)
            free[1].remove(j)
    return total, (len(first) + len(second)) / 2


def best_choice(rows: Sequence[ComparisonRow]) -> BackendConfig:
    """Return the fastest way to run the model of the first row without losing accuracy.

    The mask AP may be at most `MAX_AP_LOSS` below that of the first row. Without mask AP, only
    float32 is allowed, which must agree with the first row.

    Args:
        rows: rows from `compare_backends` with equal numbers of threads.
    """
    first = rows[0]

    def accurate(row: ComparisonRow) -> bool:
        if row.mask_ap is not None and first.mask_ap is not None:
            return row.mask_ap >= first.mask_ap - MAX_AP_LOSS
        return row.config.precision == "f32" and row.agreement >= MIN_AGREEMENT

    allowed = [row for row in rows if row.model == first.model and accurate(row)]
    best = min(allowed, key=lambda row: row.times.p50)
    return (best if best.ratio < 1 - MIN_GAIN else first).config
