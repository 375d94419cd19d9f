"""Run optimisation steps: losses, gradients, weights and their EMA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from yolact_ros.errors import YolactError
from yolact_ros.model.graphs.detect import normalise
from yolact_ros.model.yolact import Yolact
from yolact_ros.train.config import TrainConfig
from yolact_ros.train.distributed import DistributedContext
from yolact_ros.train.feature_transform.losses import (
    TRANSFORM_LOSSES,
    flow_loss,
    matching_loss,
    moved_pass,
)
from yolact_ros.train.loader import Batch, Motion
from yolact_ros.train.losses import LOSS_NAMES, at_least_one, yolact_losses
from yolact_ros.train.matching import Target
from yolact_ros.train.optimizer import (
    average_weights,
    freeze_parts,
    frozen_norms,
    learning_rate,
    make_optimizer,
)

# Non-finite float16 gradients are an error if they occur even at this loss scale.
SMALLEST_SCALE = 1.0

# State of torch's optimizers for each parameter.
OPTIMIZER_STATE = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}


class Learner:
    """Represents a network in training.

    Attributes:
        model: network whose weights the optimizer changes.
        average: EMA of its weights, if enabled.
        precision: precision of the forward pass.
    """

    def __init__(
        self, model: Yolact, config: TrainConfig, *, processes: DistributedContext
    ) -> None:
        """Prepare a network on the device; all processes get the weights of the first.

        Raises:
            ConfigError: a setting does not fit the network, the device or the processes.
        """
        self.model = model
        self.config = config
        self.processes = processes
        self.per_process_batch = processes.per_process_batch(config.batch_size)
        self.precision = choose_precision(config.precision, processes.device)
        self._frozen_norms = list(frozen_norms(model, config, images=self.per_process_batch))
        for module in self._frozen_norms:
            module.requires_grad_(False)
        freeze_parts(model, config)
        self.optimizer = make_optimizer(model, config.optimizer)
        self._scaler = torch.amp.GradScaler(
            processes.device.type, enabled=self.precision == torch.float16
        )
        processes.broadcast_from_rank0(model)
        self.average = average_weights(model, config.ema_decay) if config.ema_decay else None
        self._losses: nn.Module = BatchLosses(
            model, config, precision=self.precision, processes=processes
        )
        if processes.count > 1:
            # Single images do not use a flow network, and not every batch uses re-scoring.
            partial = config.model.mask_rescoring or config.model.flow is not None
            self._losses = DistributedDataParallel(self._losses, find_unused_parameters=partial)

    @property
    def rate(self) -> float:
        """Return the learning rate of the last step."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def learn(self, batch: Batch, *, step: int, rate: float | None = None) -> dict[str, float]:
        """Run step `step`, counted from 0, with this process's part of the batch.

        Args:
            batch: this process's part.
            step: 0-based step.
            rate: learning rate; that of the schedule by default.

        Returns:
            The losses of the whole batch.

        Raises:
            YolactError: a loss or the gradient is not finite in any process.
        """
        config = self.config
        if rate is None:
            rate = learning_rate(
                step,
                steps=config.steps,
                largest=config.optimizer.learning_rate,
                config=config.schedule,
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        self.model.train()
        for module in self._frozen_norms:
            module.eval()
        device = self.processes.device
        # Each image samples its masks with its own seed, so that neither resuming nor another
        # number of processes changes them.
        first = (
            config.seed * 1_000_003
            + step * config.batch_size
            + self.processes.rank * self.per_process_batch
        )
        try:
            losses = self._losses(
                batch.images.to(device),
                [target.to(device) for target in batch.targets],
                range(first, first + self.per_process_batch),
                None if batch.motion is None else batch.motion.to(device),
            )
            values = self._checked(losses, batch, step=step)
            self.optimizer.zero_grad()
            self._scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        except torch.cuda.OutOfMemoryError as error:
            raise YolactError(
                f"The GPU ran out of memory with {self.per_process_batch} images at step {step}. "
                "Lower batch_size, losses.masks_to_train or model.input_size, or set precision "
                f"to auto. ({error})"
            ) from error
        self._scaler.unscale_(self.optimizer)
        self._clip_gradient(batch, step=step)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.average:
            self.average.update_parameters(self.model)
        return values

    def model_to_use(self) -> Yolact:
        """Return the network with the weights to use: the EMA if enabled."""
        return cast(Yolact, self.average.module) if self.average else self.model

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, besides the weights to use and the optimizer."""
        return {
            "training_weights": self.model.state_dict() if self.average else None,
            "loss_scale": self._scaler.state_dict(),
        }

    def load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Load the moments of a checkpoint; learning rates and decays remain those of the run.

        Raises:
            ValueError: they belong to other parameters or to another optimizer.
            Exception: whatever torch raises for another structure.
        """
        own = self.optimizer.state_dict()
        groups = [group["params"] for group in state["param_groups"]]
        if groups != [group["params"] for group in own["param_groups"]]:
            raise ValueError("it belongs to other parameters")
        self.optimizer.load_state_dict({**own, "state": state["state"]})
        names = OPTIMIZER_STATE[self.config.optimizer.name]
        for parameter, values in self.optimizer.state.items():
            if set(values) != names:
                raise ValueError(f"it has {sorted(values)}; expected {sorted(names)}")
            for name, value in values.items():
                if value is None and name == "momentum_buffer":  # before a first step
                    continue
                shape = () if name == "step" else tuple(parameter.shape)
                if not isinstance(value, Tensor) or tuple(value.shape) != shape:
                    raise ValueError(f"{name} is not a tensor of shape {shape}")
                if not bool(torch.isfinite(value).all()):
                    raise ValueError(f"{name} is not finite")

    def load_scale(self, state: Mapping[str, Any]) -> None:
        """Load the loss scale from `state`."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(dict(state))

    def _checked(
        self, losses: Mapping[str, Tensor], batch: Batch, *, step: int
    ) -> dict[str, float]:
        own = torch.stack([loss.detach() for loss in losses.values()])
        means = (self.processes.sum(own) / self.processes.count).tolist()
        values = dict(zip(losses, means, strict=True))
        bad = {name: v for name, v in values.items() if not torch.isfinite(torch.tensor(v))}
        if bad:
            parts = ", ".join(f"{name} is {value}" for name, value in bad.items())
            suspects = batch.file_names if not bool(torch.isfinite(own).all()) else []
            raise YolactError(
                f"The loss is not finite at step {step}: {parts} (images: "
                f"{self._names(suspects)}). Lower the learning rate, lengthen the warm-up "
                "or clip the gradient, and resume from the last checkpoint."
            )
        return values

    def _clip_gradient(self, batch: Batch, *, step: int) -> None:
        limit = self.config.optimizer.gradient_clip
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, limit or float("inf"))
        if torch.isfinite(norm):
            return
        if self._scaler.is_enabled() and self._scaler.get_scale() > SMALLEST_SCALE:
            return  # the scaler skips this step and lowers its scale
        raise YolactError(
            f"The gradient is not finite at step {step} (images: "
            f"{self._names(batch.file_names)}). Lower the learning rate, and resume from the last "
            "checkpoint."
        )

    def _names(self, names: Sequence[str]) -> str:
        """Join the names of all processes, which call this together for the same numbers."""
        return ", ".join(name for part in self.processes.gather(list(names)) for name in part)


class BatchLosses(nn.Module):
    """Combines network and losses in one module, for DistributedDataParallel."""

    def __init__(
        self,
        model: Yolact,
        config: TrainConfig,
        *,
        precision: torch.dtype,
        processes: DistributedContext,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.precision = precision
        self.processes = processes

    def forward(
        self,
        images: Tensor,
        targets: Sequence[Target],
        seeds: Sequence[int] | None = None,
        motion: Motion | None = None,
    ) -> dict[str, Tensor]:
        """Compute losses whose mean over the processes is the loss of the whole batch.

        The reference normalises the part of each GPU separately instead. Pairs run with the
        features of their keyframes and add the losses of the feature transform.

        Args:
            images: (B, H, W, 3) uint8 BGR, on the device.
            targets: B targets, on the device.
            seeds: see `yolact_losses`.
            motion: keyframes of pairs, on the device.
        """
        config, model = self.config, self.model
        losses: dict[str, Tensor] = {}
        enabled = self.precision != torch.float32
        with torch.autocast(images.device.type, self.precision, enabled=enabled):
            if motion is None or config.pairs is None:
                output = model(_prepare(images, model))
            else:
                keyframes = _prepare(motion.keyframes, model)
                moved = moved_pass(model, _prepare(images, model), keyframes)
                output = moved.output
                losses = {
                    "flow": config.pairs.flow_weight * flow_loss(moved.transforms, motion.flow),
                    "matching": config.pairs.matching_weight
                    * matching_loss(model, moved.moved, moved.full),
                }
        broken = not all(bool(torch.isfinite(tensor).all()) for tensor in output)
        if self.processes.any(broken):
            # Cross entropy of NaN fails an assertion on a GPU, which ends the process. `learn`
            # reports a loss of NaN, in all processes at once.
            lost = torch.stack([tensor.float().sum() for tensor in output]).sum() * float("nan")
            return dict.fromkeys(loss_names(config), lost)
        detection = yolact_losses(
            output,
            targets,
            model=model,
            config=config.losses,
            seeds=seeds,
            normaliser=self._normaliser,
            images=images,
        )
        return {**detection, **losses}

    def _normaliser(self, count: int) -> float:
        total = self.processes.sum(torch.tensor(float(count), device=self.processes.device))
        return at_least_one(int(total)) / self.processes.count


def _prepare(images: Tensor, model: Yolact) -> Tensor:
    return normalise(images, model.config).contiguous(memory_format=torch.channels_last)


def loss_names(config: TrainConfig) -> tuple[str, ...]:
    """Return the names of the losses of a run, in the order of its logs."""
    absent = {
        "mask_iou": not config.model.mask_rescoring,
        "box_mask": not config.losses.box_mask_weight,
    }
    names = tuple(name for name in LOSS_NAMES if not absent.get(name))
    return names if config.pairs is None else (*names, *TRANSFORM_LOSSES)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the floating-point type of a setting; `auto` is a fast one of the device."""
    if name != "auto":
        return cast(torch.dtype, getattr(torch, name))
    if device.type != "cuda":
        return torch.float32
    fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float16
