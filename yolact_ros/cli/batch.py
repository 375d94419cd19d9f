"""`yolact batch`: segment many bags, videos and images on all cores or on a Ray cluster."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from yolact_ros import __version__
from yolact_ros.cli.bag import add_bag_arguments, read_bag_options
from yolact_ros.cli.inference import add_inference_arguments, open_segmenter
from yolact_ros.cli.settings import documented, number, read_settings
from yolact_ros.config import BackendConfig
from yolact_ros.errors import DatasetError
from yolact_ros.files import parse_json, write_json

if TYPE_CHECKING:
    from yolact_ros.batch.plan import Task
    from yolact_ros.batch.storage import Storage
    from yolact_ros.batch.worker import Settings

MOST = 10_000  # workers, CPUs and GPUs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments.

    Example:
        recordings/ -o out/results --model tools

    Options:
        sources: bag, video or image, or a folder that is searched for them; a path or a URL
            (s3://, gs://, ...).
        --output: folder for the results, as a path or URL that every worker can reach; complete
            results of an earlier run are kept.
        --format: json: one file like that of `yolact predict --json`; parquet: a folder of Parquet
            files with one row per instance.
        --address: address of a Ray cluster (default: use this machine only).
        --workers: number of workers (default: as many as fit).
        --cpus: CPUs per worker.
        --gpus: GPUs per worker, e.g. 0.5.
    """
    add = documented(parser, add_arguments)
    add("sources", nargs="+", metavar="SOURCE")
    add("-o", "--output", required=True, metavar="FOLDER")
    add("--format", choices=("json", "parquet"), default="json")
    add = documented(parser.add_argument_group("workers"), add_arguments)
    add("--address", metavar="HOST:PORT")
    add("--workers", **number(0, MOST, 0))
    add("--cpus", **number(1, MOST, 1))
    add("--gpus", **number(0.0, MOST, 0.0))
    add_bag_arguments(parser)
    add_inference_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Process the remaining tasks and join all results; return 1 if an input has none."""
    from tqdm import tqdm

    from yolact_ros.batch.plan import find_sources, make_tasks
    from yolact_ros.batch.pool import PoolConfig, connected, run_tasks
    from yolact_ros.batch.storage import Storage, filesystem_and_path
    from yolact_ros.batch.worker import Settings

    if os.path.exists(arguments.model):  # workers may have another working directory
        arguments.model = os.path.abspath(arguments.model)
    with open_segmenter(arguments) as segmenter:  # reports errors before the workers start
        description, postprocess = segmenter.description, segmenter.postprocess
    backend = read_settings(arguments, BackendConfig())
    settings = Settings(
        model=arguments.model,
        backend=dataclasses.replace(backend, threads=backend.threads or arguments.cpus),
        postprocess=postprocess,
        bag=read_bag_options(arguments),
        storage=Storage(*filesystem_and_path(arguments.output)),
        table=arguments.format == "parquet",
    )
    sources = find_sources(arguments.sources, settings.storage)
    settings.storage.check()
    tasks = make_tasks(
        sources,
        {
            "version": __version__,
            "model": description.identity,
            "target": description.target,
            "backend": dataclasses.asdict(dataclasses.replace(backend, threads=0, device=0)),
            "postprocess": dataclasses.asdict(settings.postprocess),
            "bag": dataclasses.asdict(settings.bag),
            "table": settings.table,
        },
    )
    names = settings.storage.names()
    left = [task for task in tasks if not task.is_done(names, table=settings.table)]
    complete = len(sources) - sum(len(task.sources) for task in left)
    failures: list[str] = []
    ended: list[Task] = []
    with tqdm(total=len(sources), initial=complete, desc="batch", unit="file") as bar:
        if left:
            pool = arguments.address, arguments.workers, arguments.cpus, arguments.gpus
            config = PoolConfig(*pool)
            with connected(config) as workers:
                for task, fault in run_tasks(left, settings, config, workers):
                    bar.update(len(task.sources))
                    if fault:
                        failures += [f"{source.name}: {fault}" for source in task.sources]
                    else:
                        ended.append(task)
    names = settings.storage.names()
    for task in ended:
        if not task.is_done(names, table=settings.table):
            lost = (
                f"its result is not in {arguments.output}; check that every worker can reach "
                "that folder."
            )
            failures += [f"{source.name}: {lost}" for source in task.sources]
    images, faults = _join(tasks, settings)
    for fault in (*failures, *faults):
        print(f"yolact batch: {fault}", file=sys.stderr)
    done = f"{images} images of {len(sources)} files"
    if complete:
        done += f" ({complete} of them were already complete)"
    print(f"{arguments.output}: {done}, {len(failures) + len(faults)} failures.")
    return 1 if failures or faults else 0


def _join(tasks: list[Task], settings: Settings) -> tuple[int, list[str]]:
    """Join the results of the tasks; return the number of images, and the failures."""
    storage = settings.storage
    names = storage.names()
    images, faults, entries = 0, [], []
    for task in tasks:
        if task.record in names:
            record = read_record(storage, task.record)
            images += record["images"]
            faults += record["faults"]
            entries += record["entries"]
    if settings.table:
        # A folder is read as one table, so remove the tables of sources that have changed.
        for name in names - {task.table for task in tasks}:
            if re.fullmatch(r"instances/[0-9a-f]{32}\.parquet", name):
                storage.remove(name)
    else:
        with storage.scratch() as folder:
            write_json(folder / "instances.json", entries)
            storage.keep(folder / "instances.json", "instances.json")
    return images, faults


def read_record(storage: Storage, name: str) -> dict[str, Any]:
    """Read the record of one task.

    Raises:
        DatasetError: the record was altered.
    """
    record = parse_json(storage.read(name), where=name)
    kinds = {"images": int, "faults": list, "entries": list}
    if not isinstance(record, dict) or any(
        not isinstance(record.get(key), kind) for key, kind in kinds.items()
    ):
        raise DatasetError(
            f"{storage.root}/{name} is not a record of yolact batch; remove it "
            "and run the same command again."
        )
    return record
