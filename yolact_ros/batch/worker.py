"""Run a worker, which opens a model and processes one task after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_ros.bag.segmented_bag import BagOptions, segment_bag
from yolact_ros.batch.plan import BAG, Source, Task
from yolact_ros.batch.storage import Storage, local_copy
from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.errors import YolactError
from yolact_ros.runtime.images.files import is_video, read_frames
from yolact_ros.runtime.output.entries import describe
from yolact_ros.runtime.segmenter import Segmenter

Entry = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Configures every worker.

    Attributes:
        model: name or path of the model on the worker's machine.
        backend: backend settings.
        postprocess: thresholds and limits.
        bag: contents of copies of bags; its keyframes and tracker also apply to videos.
        storage: destination of the results.
        table: whether to write Parquet, one row per instance, instead of JSON.
    """

    model: str
    backend: BackendConfig
    postprocess: PostprocessConfig
    bag: BagOptions
    storage: Storage
    table: bool


class Worker:
    """Opens the model once, and writes a record to `parts/` for each completed task."""

    def __init__(self, settings: Settings) -> None:
        """Open the model.

        Raises:
            YolactError: the model cannot be opened.
        """
        self._settings = settings
        self._segmenter = Segmenter.open(
            settings.model, backend=settings.backend, postprocess=settings.postprocess
        )
        self._classes = self._segmenter.description.model.classes

    def run(self, task: Task) -> str:
        """Process one task; write its record last, so that a task with a record is complete.

        Returns:
            The reason why there is no result, as a sentence; empty if the record was written.
            Faults of single images are in the record.
        """
        storage = self._settings.storage
        try:
            with storage.scratch() as folder:
                make = self._segment_bag if task.kind == BAG else self._segment_frames
                entries, faults = make(task, folder)
                if self._settings.table:
                    from yolact_ros.batch.table import write_table

                    write_table(folder / f"{task.key}.parquet", entries)
                    storage.keep(folder / f"{task.key}.parquet", task.table)
                kept = [] if self._settings.table else entries
                record = {"images": len(entries), "faults": faults, "entries": kept}
                (folder / f"{task.key}.json").write_text(json.dumps(record))
                storage.keep(folder / f"{task.key}.json", task.record)
        except YolactError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - one input never ends the others' work
            return f"{type(error).__name__}: {error}"
        return ""

    def close(self) -> None:
        """Close the model."""
        self._segmenter.close()

    def _segment_bag(self, task: Task, folder: Path) -> tuple[list[Entry], list[str]]:
        source, entries = task.sources[0], []

        def add(index: int, stamp: float | None, found: Any) -> None:
            entries.append(describe(f"{source.name}#{index}", found, self._classes, stamp))

        # The name is also stored inside the file.
        target = folder / task.key / Path(task.copy).name
        target.unlink(missing_ok=True)  # from a worker that was lost before it stored the bag
        with local_copy(source.fs, source.path) as path:
            report = segment_bag(
                path, target, self._segmenter, options=self._settings.bag, result=add
            )
        self._settings.storage.keep(target, task.copy)
        target.parent.rmdir()
        faults = [f"image {index}: {reason}" for index, reason in report.failures.items()]
        return entries, [f"{source.name}: {fault}" for fault in faults]

    def _segment_frames(self, task: Task, _: Path) -> tuple[list[Entry], list[str]]:
        entries: list[Entry] = []
        faults: list[str] = []
        for source in task.sources:
            for entry in self._frames(source):
                (faults if isinstance(entry, str) else entries).append(entry)  # type: ignore[arg-type]
        return entries, faults

    def _frames(self, source: Source) -> Iterator[Entry | str]:
        """Yield an entry for each image of a file, or the reason why there is none."""
        options = self._settings.bag
        with local_copy(source.fs, source.path) as path:
            stream = None
            if is_video(path):
                stream = self._segmenter.stream(options.keyframes, tracker=options.tracker)
            for frame in read_frames([path]):
                if frame.image is None:
                    yield frame.fault.replace(str(path), source.path)
                    continue
                found = (
                    self._segmenter.segment(frame.image)
                    if stream is None
                    else stream.segment(frame.image, frame.stamp)
                )
                name = source.name + frame.name.removeprefix(path.name)
                yield describe(name, found, self._classes, frame.stamp)
