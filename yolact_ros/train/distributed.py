"""The processes that train one network together, as `torchrun` starts them."""

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

# How long one process waits for the others before it gives up: long enough for COCOeval on
# thousands of images, which the first process does alone.
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class DistributedContext:
    """This process among those of the run; all call each method at the same point.

    Attributes:
        device: what this process computes on.
        rank: number of this process; 0 is the one that writes files and reports.
        count: how many there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor of the device over all processes, element by element."""
        if self.count > 1:
            tensor = tensor.detach().clone()
            dist.all_reduce(tensor)
        return tensor

    def any(self, value: bool) -> bool:
        """Whether `value` is true in one process at least."""
        if self.count == 1:
            return value
        return bool(self.sum(torch.tensor(float(value), device=self.device)) > 0)

    def gather(self, value: Any) -> list[Any]:
        """What each process has as `value`, in order of rank; any value that can be pickled."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def broadcast_from_rank0(self, module: nn.Module) -> None:
        """Give `module` the weights and statistics that it has in the first process."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                value = tensor.contiguous()  # in whatever order of channels it is kept
                dist.broadcast(value, src=0)
                tensor.copy_(value)

    def per_process_batch(self, batch_size: int) -> int:
        """Images of a batch that this process takes.

        Raises:
            ConfigError: the batch cannot be shared out evenly.
        """
        if batch_size % self.count:
            raise ConfigError(
                f"batch_size is {batch_size}, which {self.count} processes cannot share evenly; "
                f"set it to a multiple of {self.count}. It counts the images of all processes."
            )
        return batch_size // self.count


@contextlib.contextmanager
def join_processes(device: str) -> Iterator[DistributedContext]:
    """Join the processes that `torchrun` started; without it, be the only one.

    Args:
        device: `auto`, `cpu` or `cuda`; with `cuda` each process of a machine has its own GPU.

    Raises:
        ConfigError: the device is not there, or there are fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield DistributedContext(choose_device(device))
        return
    chosen = choose_device(device, place=int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    yield DistributedContext(chosen, dist.get_rank(), dist.get_world_size())
    # After an error there is nobody to say goodbye to: torchrun ends the others.
    dist.destroy_process_group()


def choose_device(name: str, *, place: int = 0) -> torch.device:
    """The device of a setting; for `cuda` the GPU of number `place`.

    Raises:
        ConfigError: it is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cuda" and not gpus:
        raise ConfigError("device is cuda, but torch finds no GPU; use auto or cpu.")
    if name == "cpu" or not gpus:
        return torch.device("cpu")
    if place >= gpus:
        raise ConfigError(
            f"Process {place} of this machine has no GPU: there are {gpus}. Start as many with "
            f"--nproc_per_node={gpus}, or set device to cpu."
        )
    return torch.device("cuda", place)
