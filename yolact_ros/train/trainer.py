"""Run the training loop: seeded, resumable, safe to interrupt, in one or several processes."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from yolact_ros.config import to_mapping
from yolact_ros.errors import ConfigError, WeightsError
from yolact_ros.malloc import keep_freed_memory
from yolact_ros.model.weights.checkpoint import (
    Checkpoint,
    check_tensors,
    initialise_weights,
    load_checkpoint,
    load_imagenet_backbone,
    load_partial_weights,
    load_weights,
    save_checkpoint,
)
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import TrainConfig, describe_scaling, scale_to_batch
from yolact_ros.train.distributed import DistributedContext, choose_device
from yolact_ros.train.learner import Learner, loss_names
from yolact_ros.train.loader import (
    Batch,
    open_training_data,
    open_validation_data,
    training_loader,
)
from yolact_ros.train.metrics import MeanLosses, RunLog
from yolact_ros.train.optimizer import check_frozen_parts, check_norms, frozen_norms
from yolact_ros.train.run_folder import BEST, LAST
from yolact_ros.train.validation import AP_NAMES, WORST, quality, summary_line, validate

logger = logging.getLogger(__name__)

TRANSFER = "transfer.txt"


class Trainer:
    """Runs one training and writes its files to one folder.

    `last.pth` is written at intervals, at the end and when interrupted; `best.pth` holds the
    weights with the highest mask AP on the validation images, or with the lowest loss if AP is
    not computed. Both hold the weights to use, which is their EMA if enabled.
    `losses.csv` and `validation.csv` are the logs, and `transfer.txt` lists which weights came
    from the checkpoint of `start_from`.

    Several processes (`distributed.join_processes`) do the same steps as one would: each processes
    its part of every batch, and only the first writes files. `run_folder.claimed` keeps a second
    run out of the folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: str | Path,
        *,
        resume: str | Path | None = None,
        processes: DistributedContext | None = None,
    ) -> None:
        """Build network, data and optimizer.

        Args:
            config: the run.
            folder: created if absent.
            resume: a `last.pth` to continue from; its network must be that of `config`.
            processes: processes that train together; only this one by default.

        Raises:
            ConfigError: no training data are named, or the device is not available.
            DatasetError: annotations or images are missing or unusable.
            WeightsError: ImageNet weights or the checkpoint to resume are invalid.
        """
        self.config = scale_to_batch(config)
        if self.config != config:
            logger.info("%s", describe_scaling(config, self.config))
        self.folder = Path(folder)
        self.processes = processes or DistributedContext(choose_device(config.device))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The folder {self.folder} cannot be created: {error}. Name another one with -o."
            ) from error
        self.device = self.processes.device
        if self.device.type == "cpu":
            keep_freed_memory()
        if config.threads:
            torch.set_num_threads(config.threads)
        self.stream = open_training_data(self.config)
        self.validation = open_validation_data(self.config)
        self.learner = Learner(
            self._make_model(fill=resume is None), self.config, processes=self.processes
        )
        self.step = 0
        self.best = WORST
        self.best_step = 0
        self.validated = 0  # step of the last validation
        if resume is not None:
            self._resume(resume)
        if self.processes.first:
            self._open_logs()
        self._stop = False
        self._faults: set[str] = set()

    @property
    def model(self) -> Yolact:
        """Return the network in training."""
        return self.learner.model

    def run(self, *, until: int | None = None) -> None:
        """Train up to the configured number of steps.

        Args:
            until: stop earlier, after this many total steps (the schedule does not change).

        Raises:
            YolactError: a loss or the gradient is not finite; nothing is saved then.
            KeyboardInterrupt: SIGINT or SIGTERM arrived; the checkpoint was saved.
        """
        try:
            self._run(min(self.config.steps, until or self.config.steps))
        except BaseException as error:
            # Its frames hold the loader, whose processes ignore SIGTERM: exiting would wait for
            # them forever, and so would the other processes of a torchrun.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            if self.processes.first:
                self.log.close()
                self.validation_log.close()

    def _run(self, end: int) -> None:
        loader = training_loader(
            self.stream,
            range(self.step, end),
            self.config,
            part=(self.processes.rank, self.processes.count),
        )
        if self._owes_validation():  # the run was killed during a validation
            self._validate()
            self.save()
        means = MeanLosses()
        started = time.perf_counter()
        with (
            self._stop_on_signals(),
            logging_redirect_tqdm(),
            tqdm(
                total=end,
                initial=self.step,
                desc="train",
                unit="step",
                smoothing=0.05,
                disable=not self.processes.first,
            ) as bar,
        ):
            for batch in loader:
                if self.step and self.step == self.validated and self._converged():
                    break
                self._report_faults(batch)
                means.add(self.learner.learn(batch, step=self.step))
                self.step += 1
                bar.update()
                if self.step % self.config.log_interval == 0:
                    images = self.config.log_interval * self.config.batch_size
                    speed = images / (time.perf_counter() - started)
                    started = time.perf_counter()
                    self._report(means, speed, bar)
                save = self.step % self.config.checkpoint_interval == 0
                if self.validation and self.step % self.config.validation_interval == 0:
                    self.save()  # a validation can take minutes, and may be killed
                    self._validate()
                    started = time.perf_counter()
                    save = True  # including the best result so far
                if save:
                    self.save()
                if self.processes.any(self._stop):
                    self._stop = True
                    break
        self.save()
        if self._faults:
            logger.warning(
                "%d images cannot be used; others took their places.", len(self._faults)
            )
        if self._stop:
            if self.processes.first:
                logger.warning(
                    "Interrupted after step %d; saved %s.", self.step, self.folder / LAST
                )
            raise KeyboardInterrupt
        if self.validation and self.validated != self.step:
            self._validate()
            self.save()

    def save(self) -> None:
        """Write `last.pth`."""
        if not self.processes.first:
            return
        with self._writing():
            save_checkpoint(
                self.folder / LAST,
                self.learner.model_to_use(),
                step=self.step,
                optimizer=self.learner.optimizer.state_dict(),
                extra={
                    "best": list(self.best),
                    "best_step": self.best_step,
                    "validated": self.validated,
                    "train_config": to_mapping(self.config),
                    **self.learner.state(),
                },
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Convert a failure to write into an error; earlier files are kept."""
        try:
            yield
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError
            raise WeightsError(
                f"The run's folder {self.folder} cannot be written: {error}; check free disk "
                f"space. Earlier files are kept; continue with --resume {self.folder}."
            ) from error

    def _owes_validation(self) -> bool:
        """Return whether the validation due at this step was not completed."""
        due = self.step >= self.config.steps or not self.step % self.config.validation_interval
        return bool(self.validation and self.step and due and self.validated != self.step)

    def _converged(self) -> bool:
        """Return whether the last `patience` validations found nothing better; log it if so."""
        waited = self.validated - self.best_step
        limit = self.config.patience * self.config.validation_interval
        if not self.processes.any(self.processes.first and 0 < limit <= waited):
            return False
        logger.info("No better result in %d validations; the run ends.", self.config.patience)
        return True

    def summary(self) -> str:
        """Return one line about the weights to use: file, step and quality."""
        ap, loss = self.best
        if not self.best_step:
            return f"{self.folder / LAST}: step {self.step}, without validation"
        text = f"loss {-loss:.3f}" if ap < 0 else f"mask AP {100 * ap:.2f}, loss {-loss:.3f}"
        return f"{self.folder / BEST}: step {self.best_step} of {self.step}, validation {text}"

    def _report_faults(self, batch: Batch) -> None:
        """Warn once about each image that cannot be read."""
        for fault in batch.passed_over:
            if fault not in self._faults:
                self._faults.add(fault)
                logger.warning("%s Until then another image takes its place.", fault)

    def _report(self, means: MeanLosses, speed: float, bar: tqdm) -> None:
        values = means.take()
        if not self.processes.first:
            return
        rate = self.learner.rate
        with self._writing():
            self.log.write(
                {"step": self.step, "learning_rate": rate, **values, "images_per_second": speed}
            )
        shown = {name: f"{value:.2f}" for name, value in values.items()}
        bar.set_postfix({**shown, "img/s": f"{speed:.1f}"})

    def _validate(self) -> None:
        """Evaluate the weights to use on the validation images; keep the best."""
        assert self.validation is not None
        model = self.learner.model_to_use().eval()
        self.processes.broadcast_from_rank0(model)  # their batch norm statistics differ
        values, result = validate(
            model,
            self.validation,
            config=self.config,
            precision=self.learner.precision,
            processes=self.processes,
        )
        self.validated = self.step
        if not self.processes.first:
            return
        if not values:
            logger.warning("Step %d: no validation image can be read.", self.step)
            return
        with self._writing():
            self.validation_log.write({"step": self.step, **values})
            if result is not None:
                self.validation_log.show(self.step, result.curves, result.pictures)
            logger.info("Step %d: %s", self.step, summary_line(values))
            if quality(values) > self.best:
                self.best, self.best_step = quality(values), self.step
                save_checkpoint(self.folder / BEST, model, step=self.step)

    def _open_logs(self) -> None:
        parts = loss_names(self.config)
        with self._writing():
            self.log = RunLog(
                self.folder / "losses.csv",
                ("step", "learning_rate", *parts, "total", "images_per_second"),
                last_step=self.step,
            )
            self.validation_log = RunLog(
                self.folder / "validation.csv",
                ("step", *parts, "total", *AP_NAMES),
                last_step=self.validated,
            )

    def _make_model(self, *, fill: bool) -> Yolact:
        """Build the network; `fill` loads the weights that a new run starts from."""
        torch.manual_seed(self.config.seed)
        model = Yolact(self.config.model)
        initialise_weights(model)
        fill = fill and self.processes.first  # the others receive its weights
        if fill and self.config.start_from:
            transfer = load_partial_weights(model, self.config.start_from)
            report = self.folder / TRANSFER
            with self._writing():
                report.write_text(transfer.report(), encoding="utf-8")
            check_frozen_parts(transfer, self.config)
            images = self.processes.per_process_batch(self.config.batch_size)
            norms = frozen_norms(model, self.config, images=images)
            check_norms(model, self.config.start_from, frozen=bool(norms))
            logger.info("%s In full: %s", transfer, report)
        elif fill and self.config.pretrained:
            load_imagenet_backbone(model)
        model.to(self.device)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _resume(self, path: str | Path) -> None:
        checkpoint: Checkpoint = load_checkpoint(path)
        if checkpoint.config != self.config.model:
            raise WeightsError(
                f"{path} contains the network {checkpoint.config.name!r}, which is not the one of "
                "this configuration; resume with the configuration that it was trained with."
            )
        if checkpoint.optimizer is None:
            raise WeightsError(
                f"{path} has no optimizer state to continue from; resume from a {LAST}."
            )
        current = checkpoint.extra.get("training_weights") or checkpoint.weights
        current = check_tensors(current, source=str(path))
        load_weights(self.model, current, source=str(path))
        if self.learner.average:
            load_weights(self.learner.average.module, checkpoint.weights, source=str(path))
            self.learner.average.n_averaged.fill_(checkpoint.step + 1)
        self.step = checkpoint.step
        extra = checkpoint.extra
        try:
            self.learner.load_optimizer(checkpoint.optimizer)
            self.learner.load_scale(extra.get("loss_scale", {}))
            ap, loss = extra.get("best", WORST)
            self.best = (float(ap), float(loss))
            self.validated = int(extra.get("validated", self.step))
            self.best_step = int(extra.get("best_step", self.validated))
        except Exception as error:  # whatever torch raises for another structure
            raise WeightsError(
                f"{path}: its training state cannot be used ({type(error).__name__}: "
                f"{error}). Resume from another copy, or start from its weights with start_from."
            ) from error

    @contextlib.contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Make SIGINT or SIGTERM end the run after the current step; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request_stop(_: int, __: FrameType | None) -> None:
            self._stop = True
            restore()

        def restore() -> None:
            for number, handler in previous.items():
                signal.signal(number, handler)

        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, request_stop) for number in numbers}
        try:
            yield
        finally:
            restore()
