"""Tune precision, batch size and learning rate with a few real training steps."""

from __future__ import annotations

import logging
import math
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from yolact_ros.errors import ConfigError, YolactError
from yolact_ros.train.config import TrainConfig
from yolact_ros.train.distributed import DistributedContext
from yolact_ros.train.learner import Learner
from yolact_ros.train.loader import Batch, collate, training_loader
from yolact_ros.train.trainer import Trainer

logger = logging.getLogger(__name__)

# Flags of /proc/cpuinfo for arithmetic in bfloat16: Intel and AMD, Intel's AMX, Arm.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
WORTHWHILE = 0.9  # maximum fraction of float32's time for which a precision is chosen
TIMED_IMAGES = 2
TIMED_STEPS = 3  # per precision, after one to warm up

LARGEST_BATCH = 64  # images per process
MEMORY_MARGIN = 0.9  # later images may have more objects

RATE_STEPS = 100
RATES = (1e-6, 1.0)
SMOOTHING = 0.9
DIVERGED = 4.0  # times the smallest smoothed loss
SETTLED = 10  # steps until the smoothed loss no longer follows single batches


def choose_cpu_precision(config: TrainConfig, processes: DistributedContext) -> TrainConfig:
    """Replace `precision: auto` with the faster one on this CPU; a GPU needs no timing."""
    if config.precision != "auto" or processes.device.type != "cpu":
        return config
    chosen, reason = "float32", "this CPU does not support bfloat16 arithmetic"
    if processes.first and cpu_has_bfloat16():
        seconds = _time_steps(config)
        ratio = seconds["bfloat16"] / seconds["float32"]
        chosen = "bfloat16" if ratio < WORTHWHILE else "float32"
        reason = f"steps in bfloat16 take {ratio:.2f} of the time of float32"
    chosen = processes.gather(chosen)[0]
    logger.info("Precision %s: %s.", chosen, reason)
    return replace(config, precision=chosen)


def cpu_has_bfloat16(path: str = "/proc/cpuinfo") -> bool:
    """Return whether the CPU supports bfloat16 arithmetic; False if unknown."""
    try:
        words = Path(path).read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not BFLOAT16_FLAGS.isdisjoint(words)


def _time_steps(config: TrainConfig) -> dict[str, float]:
    """Return the shortest time of a step in seconds in each precision, measured in turn.

    The time is infinite for a precision whose gradients are not finite.
    """
    names = ("float32", "bfloat16")
    config = replace(config, batch_size=TIMED_IMAGES, recipe_batch_size=0)
    trainer, batch = _probe(config)
    learners = {
        name: Learner(trainer.model, replace(config, precision=name), processes=trainer.processes)
        for name in names
    }
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for step in range(1 + TIMED_STEPS):
        for name, learner in learners.items():
            started = time.perf_counter()
            try:
                learner.learn(batch, step=step, rate=0.0)
            except YolactError:  # not finite
                return {other: math.inf if other == name else 1.0 for other in names}
            seconds[name].append(time.perf_counter() - started)
    return {name: min(values[1:]) for name, values in seconds.items()}


def choose_batch_size(
    config: TrainConfig, processes: DistributedContext, *, gigabytes: float
) -> TrainConfig:
    """Set the largest batch size, a power of two per process, whose steps fit in memory.

    Args:
        config: the run.
        processes: processes that train together.
        gigabytes: limit per process, in 1e9 bytes, of its GPU's memory or of its own.

    Raises:
        ConfigError: a single image exceeds the limit, or the limit is no amount of memory.
    """
    if not 0 < gigabytes < math.inf:  # NaN is not in a range
        raise ConfigError(f"--memory is {gigabytes}; expected a positive number of GB.")
    limit = gigabytes * 1e9 * MEMORY_MARGIN
    trainer, _ = _probe(replace(config, batch_size=1, recipe_batch_size=0))
    used: list[float] = []
    while 2 ** len(used) <= LARGEST_BATCH:
        # Memory grows linearly: the next doubling adds twice what the last one added.
        if len(used) > 1 and 3 * used[-1] - 2 * used[-2] > limit:
            break
        peak = _peak_memory(trainer, config, images=2 ** len(used))
        if peak > limit:
            break
        used.append(peak)
    fitting = min(processes.gather(len(used)))
    if not fitting:
        raise ConfigError(
            f"A training step with one image takes more than {MEMORY_MARGIN:g} of {gigabytes:g} "
            "GB. Raise --memory, or lower losses.masks_to_train or model.input_size."
        )
    size = 2 ** (fitting - 1) * processes.count
    logger.info("Batch size %d: a step takes up to %.1f GB.", size, used[fitting - 1] / 1e9)
    return replace(config, batch_size=size)


def _peak_memory(trainer: Trainer, config: TrainConfig, *, images: int) -> float:
    """Return the peak memory in bytes of two steps with `images` images; inf if out of memory."""
    device = trainer.device
    config = replace(config, batch_size=images, recipe_batch_size=0)
    learner = Learner(trainer.model, config, processes=trainer.processes)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        for step in range(2):
            learner.learn(_first_batch(trainer, images), step=step, rate=0.0)
    except YolactError as error:
        if isinstance(error.__cause__, torch.cuda.OutOfMemoryError):
            return math.inf
        raise
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def find_rate(config: TrainConfig, processes: DistributedContext) -> float:
    """Return the `optimizer.learning_rate` at which the loss falls fastest, by a range test.

    The rate grows exponentially over `RATE_STEPS` steps until the loss diverges (Smith 2017,
    "Cyclical learning rates for training neural networks", section 3.3).

    Raises:
        ConfigError: there are several processes.
    """
    if processes.count > 1:
        raise ConfigError("--find-rate requires a single process; run it without torchrun.")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, folder, processes=processes)
        loader = training_loader(trainer.stream, range(RATE_STEPS), trainer.config)
        rates = np.geomspace(*RATES, RATE_STEPS)
        losses: list[float] = []
        for step, batch in enumerate(tqdm(loader, desc="find rate", unit="step")):
            try:
                values = trainer.learner.learn(batch, step=step, rate=float(rates[step]))
            except YolactError:  # not finite
                break
            losses.append(sum(values.values()))
            if smooth(losses)[-1] > DIVERGED * smooth(losses).min():
                break
    # The recipe states the rate of its own batch size.
    scale = (config.recipe_batch_size or config.batch_size) / config.batch_size
    return scale * steepest(rates[: len(losses)], losses)


def smooth(losses: list[float]) -> np.ndarray:
    """Return the exponential moving average of (N,) losses, with bias correction."""
    mean, means = 0.0, []
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**number))
    return np.array(means)


def steepest(rates: np.ndarray, losses: list[float]) -> float:
    """Return the rate at which the smoothed loss falls fastest per logarithm of the rate.

    Raises:
        ConfigError: the loss never falls.
    """
    means, rates = smooth(losses)[SETTLED:], rates[SETTLED:]
    lowest = int(means.argmin()) if len(means) else 0
    if lowest < 2:
        raise ConfigError(
            "The loss did not fall at any learning rate; check the data and the recipe."
        )
    slopes = np.gradient(means[: lowest + 1], np.log(rates[: lowest + 1]))
    return float(rates[slopes.argmin()])


def _probe(config: TrainConfig) -> tuple[Trainer, Batch]:
    """Build network and data of a run in this process only, and its first batch."""
    with tempfile.TemporaryDirectory() as folder:
        alone = replace(config, validation=TrainConfig.validation, pretrained=False, start_from="")
        trainer = Trainer(alone, folder)
    return trainer, _first_batch(trainer, config.batch_size)


def _first_batch(trainer: Trainer, images: int) -> Batch:
    batch = collate([trainer.stream[position] for position in range(images)])
    assert batch is not None
    return batch
