"""One worker: a model, and the tasks that it is given one after another."""

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
    """What every worker does.

    Attributes:
        model: its name or path, on the worker's machine.
        backend: what runs it.
        postprocess: thresholds and limits.
        bag: what goes into copies of bags; keyframes and tracker also serve videos.
        storage: where results go.
        table: write Parquet, one row an instance, and not JSON.
    """

    model: str
    backend: BackendConfig
    postprocess: PostprocessConfig
    bag: BagOptions
    storage: Storage
    table: bool


class Worker:
    """Opens the model once, and leaves a record in `parts/` of each task that it has completed."""

    def __init__(self, settings: Settings) -> None:
        """Open the model.

        Raises:
            YolactError: it cannot be opened.
        """
        self._settings = settings
        self._segmenter = Segmenter.open(
            settings.model, backend=settings.backend, postprocess=settings.postprocess
        )
        self._classes = self._segmenter.description.model.classes

    def run(self, task: Task) -> str:
        """Do one task; its record goes last, so that a task with a record is complete.

        Returns:
            Why there is no result at all, as a sentence; empty if the record was written. What
            went wrong with single images is in the record.
        """
        storage = self._settings.storage
        try:
            with storage.workplace() as folder:
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

        def add(place: int, stamp: float | None, found: Any) -> None:
            entries.append(describe(f"{source.name}#{place}", found, self._classes, stamp))

        target = folder / task.key / Path(task.copy).name  # its name is inside the file, too
        target.unlink(missing_ok=True)  # of a worker that was lost before it kept the bag
        with local_copy(source.fs, source.path) as path:
            report = segment_bag(
                path, target, self._segmenter, options=self._settings.bag, result=add
            )
        self._settings.storage.keep(target, task.copy)
        target.parent.rmdir()
        faults = [f"image {place}: {reason}" for place, reason in report.failures.items()]
        return entries, [f"{source.name}: {fault}" for fault in faults]

    def _segment_frames(self, task: Task, _: Path) -> tuple[list[Entry], list[str]]:
        entries: list[Entry] = []
        faults: list[str] = []
        for source in task.sources:
            for entry in self._frames(source):
                (faults if isinstance(entry, str) else entries).append(entry)  # type: ignore[arg-type]
        return entries, faults

    def _frames(self, source: Source) -> Iterator[Entry | str]:
        """Give an entry for each image of a video or picture, or why there is none."""
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
