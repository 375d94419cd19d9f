"""Communicate between the processes that train one network, started by `torchrun`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from yolact_ros.errors import ConfigError

# How long a process waits for the others: long enough for COCOeval on thousands of images, which
# only the first process runs.
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class DistributedContext:
    """Represents this process among all of the run, which must call each method together.

    Attributes:
        device: device of this process.
        rank: index of this process; process 0 writes files and reports.
        count: number of processes.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Return whether this process writes files and reports."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, element by element."""
        if self.count > 1:
            tensor = tensor.detach().clone()
            dist.all_reduce(tensor)
        return tensor

    def any(self, value: bool) -> bool:
        """Return whether `value` is true in at least one process."""
        if self.count == 1:
            return value
        return bool(self.sum(torch.tensor(float(value), device=self.device)) > 0)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes in order of rank; any value that can be pickled."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def broadcast_from_rank0(self, module: nn.Module) -> None:
        """Copy the weights and statistics of `module` from the first process."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                value = tensor.contiguous()  # whatever its memory format
                dist.broadcast(value, src=0)
                tensor.copy_(value)

    def per_process_batch(self, batch_size: int) -> int:
        """Return the number of images per batch for this process.

        Raises:
            ConfigError: the batch size is not a multiple of the number of processes.
        """
        if batch_size % self.count:
            raise ConfigError(
                f"batch_size is {batch_size}, not divisible by the {self.count} processes; "
                f"set it to a multiple of {self.count}. It counts the images of all processes."
            )
        return batch_size // self.count


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[DistributedContext]:
    """Join the processes that `torchrun` started; without it, there is only this process.

    Args:
        device: `auto`, `cpu` or `cuda`; with `cuda` each process of a machine has its own GPU.

    Raises:
        ConfigError: the device does not exist, or there are fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield DistributedContext(choose_device(device))
        return
    chosen = choose_device(device, index=int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    yield DistributedContext(chosen, dist.get_rank(), dist.get_world_size())
    # Not after an error, when torchrun ends the other processes.
    dist.destroy_process_group()


def choose_device(name: str, *, index: int = 0) -> torch.device:
    """Return the device of a setting; for `cuda`, the GPU with this index.

    Raises:
        ConfigError: the device does not exist.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cuda" and not gpus:
        raise ConfigError("device is cuda, but torch finds no GPU; use auto or cpu.")
    if name == "cpu" or not gpus:
        return torch.device("cpu")
    if index >= gpus:
        raise ConfigError(
            f"Process {index} of this machine has no GPU: there are {gpus}. Start as many with "
            f"--nproc_per_node={gpus}, or set device to cpu."
        )
    return torch.device("cuda", index)
