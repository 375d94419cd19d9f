"""The training loop: seeded, resumable, safe to interrupt."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from tqdm import tqdm

from yolact_ros.config import to_plain
from yolact_ros.errors import ConfigError, WeightsError, YolactError
from yolact_ros.model.inference import normalise
from yolact_ros.model.weights import (
    Checkpoint,
    initialise_weights,
    load_checkpoint,
    load_imagenet_backbone,
    load_partial_weights,
    load_weights,
    save_checkpoint,
)
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.allocator import keep_freed_memory
from yolact_ros.train.config import TrainConfig
from yolact_ros.train.dataset import CocoDataset
from yolact_ros.train.loader import (
    Batch,
    TrainingStream,
    ValidationSamples,
    training_loader,
    validation_loader,
)
from yolact_ros.train.log import CsvLog, MeanLosses
from yolact_ros.train.losses import LOSS_NAMES, yolact_losses
from yolact_ros.train.optimizer import WeightAverage, learning_rate, make_optimizer

logger = logging.getLogger(__name__)

LAST = "last.pth"
BEST = "best.pth"
TRANSFER = "transfer.txt"


class Trainer:
    """One training run, whose files lie in one folder.

    `last.pth` is written at intervals, at the end and when interrupted; `best.pth` holds the
    weights of the smallest validation loss. The weights of both are those to use, that is their
    running mean where there is one. `losses.csv` and `validation.csv` are the logs, and
    `transfer.txt` tells what a run took from the checkpoint that it started from.
    """

    def __init__(
        self, config: TrainConfig, folder: str | Path, *, resume: str | Path | None = None
    ) -> None:
        """Build network, data and optimizer.

        Args:
            config: the run.
            folder: made if absent.
            resume: a `last.pth` to go on from; its network must be that of `config`.

        Raises:
            ConfigError: no training data are named, or the device is not there.
            DatasetError: annotations or images are missing or unusable.
            WeightsError: ImageNet weights or the checkpoint to resume cannot be used.
        """
        self.config = config
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = _choose_device(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        if config.threads:
            torch.set_num_threads(config.threads)
        self.stream = self._open_training_data()
        self.validation = self._open_validation_data()
        self.model = self._make_model(fill=resume is None)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.average = WeightAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.step = 0
        self.best_loss = float("inf")
        if resume is not None:
            self._resume(resume)
        parts = LOSS_NAMES if config.model.mask_rescoring else LOSS_NAMES[:-1]
        self.log = CsvLog(
            self.folder / "losses.csv",
            ("step", "learning_rate", *parts, "total", "images_per_second"),
            last_step=self.step,
        )
        self.validation_log = CsvLog(
            self.folder / "validation.csv", ("step", *parts, "total"), last_step=self.step
        )
        self._stop = False

    def run(self, *, until: int | None = None) -> None:
        """Train up to the configured number of steps.

        Args:
            until: stop earlier, after this many steps in all (the schedule does not change).

        Raises:
            YolactError: a loss or the gradient is not finite; nothing is saved then.
            KeyboardInterrupt: SIGINT arrived; the checkpoint was saved.
        """
        end = min(self.config.steps, until or self.config.steps)
        loader = training_loader(
            self.stream,
            batch_size=self.config.batch_size,
            first_step=self.step,
            steps=end,
            workers=self.config.workers,
        )
        means = MeanLosses()
        started = time.perf_counter()
        with (
            self._stop_on_sigint(),
            tqdm(total=end, initial=self.step, desc="train", unit="step", smoothing=0.05) as bar,
        ):
            for batch in loader:
                means.add(self._train_step(batch))
                bar.update()
                if self.step % self.config.log_interval == 0:
                    images = self.config.log_interval * self.config.batch_size
                    speed = images / (time.perf_counter() - started)
                    started = time.perf_counter()
                    self._report(means, speed, bar)
                if self.validation and self.step % self.config.validation_interval == 0:
                    self._validate()
                    started = time.perf_counter()
                if self.step % self.config.checkpoint_interval == 0:
                    self.save()
                if self._stop:
                    break
        self.save()
        if self._stop:
            logger.warning("Interrupted after step %d; saved %s.", self.step, self.folder / LAST)
            raise KeyboardInterrupt
        if self.validation and self.step % self.config.validation_interval:
            self._validate()

    def save(self) -> None:
        """Write `last.pth`."""
        save_checkpoint(
            self.folder / LAST,
            self._model_to_use(),
            step=self.step,
            optimizer=self.optimizer.state_dict(),
            extra={
                "best_loss": self.best_loss,
                "train_config": to_plain(self.config),
                "training_weights": self.model.state_dict() if self.average else None,
            },
        )

    def _train_step(self, batch: Batch) -> dict[str, float]:
        """Do one optimisation step; return its losses."""
        config = self.config
        rate = learning_rate(
            self.step,
            steps=config.steps,
            largest=config.optimizer.learning_rate,
            config=config.schedule,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self._set_mode()
        losses = self._losses(self.model, batch, seed=self.step)
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        self._check_finite(values, batch)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self._clip_gradient(batch)
        self.optimizer.step()
        self.step += 1
        if self.average:
            self.average.update(self.model, step=self.step)
        return values

    def _losses(self, model: Yolact, batch: Batch, *, seed: int) -> dict[str, Tensor]:
        images = normalise(batch.images.to(self.device), self.config.model)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = [target.to(self.device) for target in batch.targets]
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        ):
            output = model(images)
        # A generator of its own for every step, so that a resumed run draws the same masks.
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + seed)
        return yolact_losses(
            output, targets, model=model, config=self.config.losses, generator=generator
        )

    def _check_finite(self, values: dict[str, float], batch: Batch) -> None:
        bad = {n: v for n, v in values.items() if not torch.isfinite(torch.tensor(v))}
        if bad:
            parts = ", ".join(f"{name} is {value}" for name, value in bad.items())
            raise YolactError(
                f"The loss is not finite at step {self.step}: {parts} (images: "
                f"{', '.join(batch.file_names)}). Lower the learning rate, lengthen the warm-up "
                f"or clip the gradient, and resume from {self.folder / LAST}."
            )

    def _clip_gradient(self, batch: Batch) -> None:
        limit = self.config.optimizer.gradient_clip
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, limit or float("inf"))
        if not torch.isfinite(norm):
            raise YolactError(
                f"The gradient is not finite at step {self.step} (images: "
                f"{', '.join(batch.file_names)}). Lower the learning rate, and resume from "
                f"{self.folder / LAST}."
            )

    def _report(self, means: MeanLosses, speed: float, bar: tqdm) -> None:
        values = means.take()
        rate = self.optimizer.param_groups[-1]["lr"]
        self.log.write(
            {"step": self.step, "learning_rate": rate, **values, "images_per_second": speed}
        )
        shown = {name: f"{value:.2f}" for name, value in values.items()}
        bar.set_postfix({**shown, "img/s": f"{speed:.1f}"})

    @torch.no_grad()
    def _validate(self) -> None:
        """Compute the losses of the validation images; keep the best weights."""
        model = self._model_to_use().eval()
        means = MeanLosses()
        loader = validation_loader(self.validation, batch_size=self.config.batch_size)
        for batch in tqdm(loader, desc="validate", unit="batch", leave=False):
            losses = self._losses(model, batch, seed=0)
            means.add(
                {name: float(loss) for name, loss in losses.items()}, weight=len(batch.targets)
            )
        values = means.take()
        self.validation_log.write({"step": self.step, **values})
        if values["total"] < self.best_loss:
            self.best_loss = values["total"]
            save_checkpoint(self.folder / BEST, model, step=self.step)

    def _model_to_use(self) -> Yolact:
        return self.average.model if self.average else self.model

    def _set_mode(self) -> None:
        self.model.train()
        if self.config.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _make_model(self, *, fill: bool) -> Yolact:
        """Build the network, with the weights of a first step if `fill`."""
        torch.manual_seed(self.config.seed)
        model = Yolact(self.config.model)
        initialise_weights(model)
        if fill and self.config.start_from:
            transfer = load_partial_weights(model, self.config.start_from)
            report = self.folder / TRANSFER
            report.write_text(transfer.report(), encoding="utf-8")
            logger.info("%s In full: %s", transfer, report)
        elif fill and self.config.pretrained:
            load_imagenet_backbone(model)
        if self.config.freeze_batch_norm:
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.requires_grad_(False)
        freeze_parts(model, self.config.frozen)
        return model.to(self.device).to(memory_format=torch.channels_last)

    def _open_training_data(self) -> TrainingStream:
        config = self.config
        if not config.training.annotations:
            raise ConfigError(
                "No training data: set training.annotations and training.images, in the file or "
                "with --set."
            )
        dataset = CocoDataset(
            config.training.annotations, config.training.images, config.model.classes
        )
        dataset.check_files()
        return TrainingStream(
            dataset,
            model=config.model,
            config=config.augmentation,
            seed=config.seed,
            repeat_threshold=config.repeat_threshold,
        )

    def _open_validation_data(self) -> ValidationSamples | None:
        config = self.config
        if not config.validation.annotations:
            return None
        dataset = CocoDataset(
            config.validation.annotations, config.validation.images, config.model.classes
        )
        dataset.check_files()
        return ValidationSamples(dataset, model=config.model, count=config.validation_images)

    def _resume(self, path: str | Path) -> None:
        checkpoint: Checkpoint = load_checkpoint(path)
        if checkpoint.config != self.config.model:
            raise WeightsError(
                f"{path} holds the network {checkpoint.config.name!r}, which is not the one of "
                "this configuration; resume with the configuration that it was made with."
            )
        if checkpoint.optimizer is None:
            raise WeightsError(
                f"{path} has no optimizer state to go on from; resume from a {LAST}."
            )
        current = checkpoint.extra.get("training_weights") or checkpoint.weights
        load_weights(self.model, current, source=str(path))
        if self.average:
            load_weights(self.average.model, checkpoint.weights, source=str(path))
        self.optimizer.load_state_dict(dict(checkpoint.optimizer))
        self.step = checkpoint.step
        self.best_loss = float(checkpoint.extra.get("best_loss", float("inf")))

    @contextlib.contextmanager
    def _stop_on_sigint(self) -> Iterator[None]:
        """Let SIGINT end the run after the step at hand; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request_stop(_: int, __: FrameType | None) -> None:
            self._stop = True
            signal.signal(signal.SIGINT, previous)

        previous = signal.signal(signal.SIGINT, request_stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


def freeze_parts(model: Yolact, prefixes: tuple[str, ...]) -> None:
    """Exclude parameters from training whose dotted names start with one of `prefixes`.

    Raises:
        ConfigError: a prefix fits no parameter.
    """
    for prefix in prefixes:
        parameters = [
            parameter
            for name, parameter in model.named_parameters()
            if name.startswith(prefix.rstrip(".") + ".")
        ]
        if not parameters:
            raise ConfigError(
                f"frozen names {prefix!r}, but the network has no such part; its parts are: "
                f"{', '.join(name for name, _ in model.named_children())}."
            )
        for parameter in parameters:
            parameter.requires_grad_(False)


def _choose_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no GPU; use auto or cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
