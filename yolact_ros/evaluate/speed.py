"""Measure the time per stage, and that of post-processing on synthetic scenes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from yolact_ros.config import ModelConfig, PostprocessConfig
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.machine import describe_machine, peak_memory_mb
from yolact_ros.priors import make_priors
from yolact_ros.runtime.detections import KEYFRAME, PARTIAL, Detections
from yolact_ros.runtime.enlarge import enlarge_masks
from yolact_ros.runtime.images.files import find_files, read_frames
from yolact_ros.runtime.masks import assemble_masks
from yolact_ros.runtime.postprocess import select_detections
from yolact_ros.runtime.preprocess import Placement

WARM_UP = 3  # frames before the measurement


@dataclass(frozen=True)
class Times:
    """Holds statistics of the milliseconds of one stage."""

    p50: float
    p95: float
    mean: float
    least: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Times:
        """Summarize at least one measurement."""
        p50, p95 = np.percentile(milliseconds, [50, 95])
        return cls(float(p50), float(p95), float(np.mean(milliseconds)), min(milliseconds))


@dataclass(frozen=True)
class SpeedReport:
    """Holds the results of a measurement.

    Attributes:
        stages: `preprocess`, `inference`, `postprocess` and `total`; for a stream with reuse of
            features also `keyframe` and `partial`, the total of each type of frame.
        frames: number of measured frames.
        frames_per_second: from the mean of `total`.
        instances: mean number of detections per frame.
        peak_memory_mb: peak memory of the process, including the decoding of the input.
        machine: description of the machine.
    """

    stages: Mapping[str, Times]
    frames: int
    frames_per_second: float
    instances: float
    peak_memory_mb: float
    machine: Mapping[str, str]


def measure_speed(
    segment: Callable[[np.ndarray], Detections], images: Iterable[np.ndarray], *, frames: int
) -> SpeedReport:
    """Segment images and time each stage, without the time for reading the images.

    Args:
        segment: `Segmenter.segment` or `Stream.detect`.
        images: at least `frames + WARM_UP` images, (H, W, 3) uint8 BGR.
        frames: number of frames to measure.
    """
    stages: dict[str, list[float]] = defaultdict(list)
    instances: list[int] = []
    chosen = islice(images, frames + WARM_UP)
    bar = tqdm(chosen, total=frames + WARM_UP, desc="benchmark", unit="frame", mininterval=0.5)
    for number, image in enumerate(bar):
        started = time.perf_counter()
        found = segment(image)
        total = (time.perf_counter() - started) * 1e3
        if number < WARM_UP:
            continue
        for stage, value in found.timings.items():
            stages[stage].append(value)
        stages["total"].append(total)
        stages[found.frame_type].append(total)
        instances.append(len(found))
    if PARTIAL not in stages:
        stages.pop(KEYFRAME, None)
    times = {stage: Times.of(values) for stage, values in stages.items()}
    return SpeedReport(
        stages=times,
        frames=len(instances),
        frames_per_second=1e3 / times["total"].mean,
        instances=float(np.mean(instances)),
        peak_memory_mb=peak_memory_mb(),
        machine=describe_machine(),
    )


def endless_images(path: Path) -> Iterator[np.ndarray]:
    """Yield the images of a file, folder or video endlessly.

    Raises:
        DatasetError: no image can be read.
    """
    files = find_files([path])
    while True:
        readable = 0
        for frame in read_frames(files):
            if frame.image is not None:
                readable += 1
                yield frame.image
        if not readable:
            raise DatasetError(f"{path} has no image that OpenCV can read.")


def measure_postprocess(
    model: ModelConfig, *, instances: int, image_size: tuple[int, int], repetitions: int
) -> dict[str, Times]:
    """Time post-processing on a synthetic scene, which is the same in every call.

    Args:
        model: configuration with the number of priors, classes and prototypes.
        instances: number of objects in the scene.
        image_size: (height, width) of the source image.
        repetitions: number of measurements.

    Returns:
        `nms`, `soft masks`, `enlarge` and `total`.
    """
    predictions = synthetic_predictions(model, instances=instances)
    placement = Placement(image_size, (float(image_size[0]), float(image_size[1])))
    config = PostprocessConfig()
    stages: dict[str, list[float]] = defaultdict(list)
    for number in range(repetitions + WARM_UP):
        marks = [time.perf_counter()]
        selection = select_detections(predictions, config)
        marks.append(time.perf_counter())
        soft = assemble_masks(predictions["prototypes"], selection.coefficients, selection.boxes)
        marks.append(time.perf_counter())
        enlarge_masks(soft, placement, config.mask_threshold)
        marks.append(time.perf_counter())
        if number >= WARM_UP:
            values = [*np.diff(marks), marks[-1] - marks[0]]
            for stage, value in zip(
                ("nms", "soft masks", "enlarge", "total"), values, strict=True
            ):
                stages[stage].append(float(value) * 1e3)
    return {stage: Times.of(values) for stage, values in stages.items()}


PRIORS_PER_OBJECT = 12  # above the threshold, as for a trained network


def synthetic_predictions(
    model: ModelConfig, *, instances: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return outputs of the graph `detect` for a scene with `instances` objects.

    The sides of the objects are distributed log-uniformly between 4 and 60 % of the image's sides,
    as in COCO. Several priors detect each object with its one class; all other scores are low.
    """
    rng = np.random.default_rng(seed)
    num_priors = len(make_priors(model))
    sides = np.exp(rng.uniform(np.log(0.04), np.log(0.6), (instances, 2)))
    centres = rng.uniform(sides / 2, 1 - sides / 2)
    objects = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)

    boxes = rng.uniform(0, 1, (num_priors, 4))
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(0.02, 0.3, (num_priors, 2))
    class_scores = rng.uniform(0, 0.01, (num_priors, model.num_classes))
    coefficients = rng.uniform(-1, 1, (num_priors, model.num_prototypes))
    seen = rng.permutation(num_priors)[: instances * PRIORS_PER_OBJECT]
    owners = np.arange(len(seen)) % max(instances, 1)
    jitter = rng.normal(0, 0.04, (len(seen), 4)) * np.tile(sides, 2)[owners]
    boxes[seen] = objects[owners] + jitter
    classes = rng.integers(0, model.num_classes, max(instances, 1))
    class_scores[seen, classes[owners]] = rng.uniform(0.4, 0.95, len(seen))
    return {
        "boxes": boxes.astype(np.float32),
        "class_scores": class_scores.astype(np.float32),
        "coefficients": coefficients.astype(np.float32),
        "prototypes": _smooth_prototypes(model, rng),
    }


def synthetic_image(size: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Return a (height, width, 3) uint8 image of smooth coloured waves with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    phases = rng.uniform(0, 12, (3, 3))
    waves = np.stack([np.sin(x * a + y * b + c) for a, b, c in phases], axis=-1)
    return np.clip(128 + 90 * waves + rng.normal(0, 10, waves.shape), 0, 255).astype(np.uint8)


def _smooth_prototypes(model: ModelConfig, rng: np.random.Generator) -> np.ndarray:
    height, width = model.prototype_size
    y, x = np.mgrid[:height, :width] / max(height, width)
    a, b, c = rng.uniform(-20, 20, (3, model.num_prototypes))
    waves = np.sin(x[..., None] * a + y[..., None] * b + c)
    return np.maximum(2 * waves, 0).astype(np.float32)
