"""Run workers on a Ray cluster or on the cores of this machine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, RayError

from yolact_ros.batch.plan import Task
from yolact_ros.batch.worker import Settings, Worker
from yolact_ros.errors import BackendError, ConfigError

CONNECT_S: Final = 10.0
RETRIES: Final = 2  # of a task whose worker was lost
STORE_BYTES: Final = 100_000_000  # of shared memory; results go to files, not through Ray


@dataclass(frozen=True)
class PoolConfig:
    """Configures the workers.

    Attributes:
        address: address of a Ray cluster; None for this machine only.
        workers: number of workers; 0 for as many as fit.
        cpus, gpus: resources of each worker; GPUs may be fractional.
    """

    address: str | None = None
    workers: int = 0
    cpus: int = 1
    gpus: float = 0.0


@contextmanager
def connected(config: PoolConfig) -> Iterator[int]:
    """Start Ray on this machine, or join a cluster; yield the number of workers.

    Raises:
        BackendError: the cluster does not exist, or has no room for a worker.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no telemetry to Ray's makers
    here: dict[str, Any] = {
        # A cluster that happens to run on this machine is joined only if it is named.
        "address": "local",
        "num_cpus": int(config.workers * config.cpus) or None,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
    }
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if config.address and "://" not in config.address:  # Ray itself would try for minutes
            host, _, port = config.address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(
            **({"address": config.address} if config.address else here),
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        address = config.address
        failed = f"be reached at {address}" if address else "start on this machine"
        raise BackendError(f"Ray cannot {failed}: {error}.") from error
    finally:
        if on_sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own prints a stack trace
    try:
        has = ray.cluster_resources()
        room = int(has.get("CPU", 0) / config.cpus)
        if config.gpus:
            room = min(room, int(has.get("GPU", 0) / config.gpus))
        if room < max(config.workers, 1):
            raise ConfigError(
                f"{max(config.workers, 1)} workers need {config.cpus:g} CPUs and {config.gpus:g} "
                f"GPUs each, but Ray has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} "
                "GPUs in total. Lower --workers, --cpus or --gpus."
            )
        yield config.workers or room
    finally:
        ray.shutdown()


def run_tasks(
    tasks: Iterable[Task], settings: Settings, config: PoolConfig, workers: int
) -> Iterator[tuple[Task, str]]:
    """Yield each task when it ends, with the reason if it has no result, else empty.

    A lost worker is restarted, on another machine if necessary, together with its task. A task
    that has lost `RETRIES` + 1 workers has failed.

    Raises:
        BackendError: no worker can open the model.
    """
    actor: Any = ray.remote(Worker)
    actor = actor.options(
        num_cpus=config.cpus, num_gpus=config.gpus, max_restarts=-1, max_task_retries=RETRIES
    )
    waiting = deque(tasks)
    idle = [actor.remote(settings) for _ in range(min(workers, len(waiting)))]
    running: dict[Any, tuple[Any, Task]] = {}
    while waiting or running:
        while idle and waiting:
            worker, task = idle.pop(), waiting.popleft()
            running[worker.run.remote(task)] = worker, task
        ended, _ = ray.wait(list(running))
        worker, task = running.pop(ended[0])
        try:
            fault = ray.get(ended[0])
        except ActorDiedError as error:  # permanently: it cannot open its model
            waiting.appendleft(task)
            if not idle and not running:
                raise BackendError(f"No worker can open {settings.model}: {error}") from error
            continue
        except RayError as error:
            fault = f"Its worker was lost {RETRIES + 1} times: {error}"
        idle.append(worker)
        yield task, fault
