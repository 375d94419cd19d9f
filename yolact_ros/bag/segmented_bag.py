"""Copy bags and add the instances of one camera."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, Writer

from yolact_ros.bag import journal
from yolact_ros.bag.files import (
    WorkingFolder,
    copy_connections,
    find_images,
    open_bag,
    read_messages,
    storage_of,
)
from yolact_ros.bag.journal import Entry, Journal
from yolact_ros.bag.messages import (
    COMPRESSED_IMAGE,
    IMAGE_ANNOTATIONS,
    read_image,
    read_message,
    serialize_annotations,
    serialize_overlay,
    serialize_result,
    typestore,
)
from yolact_ros.bag.records import pack_detections, unpack_detections
from yolact_ros.config import KeyframeConfig, TrackerConfig
from yolact_ros.errors import DatasetError, MessageError
from yolact_ros.runtime.detections import KEYFRAME, Detections
from yolact_ros.runtime.output.instance_array import INSTANCE_ARRAY, MASK_ENCODINGS
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.stamps import seconds_of
from yolact_ros.runtime.stream import Stream

# Version of the rosbag2 format: that of Iron. Jazzy and later write 9, but also read this one.
BAG_VERSION: Final = 8


@dataclass(frozen=True)
class BagOptions:
    """Configures a new bag.

    Attributes:
        topic: topic of the images; None for the only one in the bag.
        result_topic: topic of the instances.
        mask_encoding: encoding of the masks, a key of `MASK_ENCODINGS`.
        annotations: whether to add the instances as annotations for Foxglove as well.
        overlay: whether to add JPEG images with the instances drawn on them.
        keyframes: settings of keyframes and propagation.
        tracker: settings of the tracker.
    """

    topic: str | None = None
    result_topic: str = "/yolact/instances"
    mask_encoding: str = "bits"
    annotations: bool = False
    overlay: bool = False
    keyframes: KeyframeConfig = KeyframeConfig()
    tracker: TrackerConfig = TrackerConfig()

    def topics(self) -> dict[str, str]:
        """Return the name and type of each topic to add; all are in the same namespace."""
        topics = {self.result_topic: INSTANCE_ARRAY}
        stem = self.result_topic.rpartition("/")[0]
        if self.annotations:
            topics[f"{stem}/annotations"] = IMAGE_ANNOTATIONS
        if self.overlay:
            topics[f"{stem}/overlay/compressed"] = COMPRESSED_IMAGE
        return topics


@dataclass(frozen=True)
class BagReport:
    """Accounts for the images of a bag.

    Attributes:
        topic: topic of the images.
        images: number of images.
        resumed: number of results from an earlier, interrupted run.
        failures: reason of each missing result, by the 0-based index of the image.
    """

    topic: str
    images: int
    resumed: int
    failures: dict[int, str]


def segment_bag(
    source: Path,
    target: Path,
    segmenter: Segmenter,
    *,
    options: BagOptions = BagOptions(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] = lambda done, total: None,
    result: Callable[[int, float | None, Detections], None] = lambda index, stamp, found: None,
) -> BagReport:
    """Copy a bag and add an `InstanceArray` after every image of a topic.

    Results have the headers and recording times of the images. The same bag, model and settings
    produce the same bytes. An interrupted run, e.g. due to a full disk, leaves its results beside
    `target`, and the same call resumes it; `target` appears once it is complete.

    Args:
        source: folder written by `ros2 bag record`, or a .mcap or .db3 file.
        target: new bag: a .mcap or .db3 file, otherwise a folder with the storage of `source`.
        segmenter: open segmenter.
        options: topics and settings.
        progress: called with the number of finished images and of all images, at the start and
            after each image.
        result: called with the index of each image in its topic, its stamp in seconds, and its
            detections.

    Raises:
        DatasetError: the bag cannot be read or written, or has no such topic.
        ConfigError: the model does not support the warp of `options.keyframes`.
        BackendError: the backend fails.
    """
    working = WorkingFolder(target)
    with open_bag(source) as reader:
        images = find_images(reader, options.topic)
        for topic in {connection.topic for connection in reader.connections}:
            if topic in options.topics():
                raise DatasetError(
                    f"The bag {source} already has a topic {topic}; name another one with "
                    "--result-topic."
                )
        stream = segmenter.stream(options.keyframes, tracker=options.tracker)
        working.prepare()
        identity = _identity(source, images[0].topic, segmenter, options)
        with working.writing():
            known = Journal(working.folder / "results", identity)
        with known:
            _check_room(source, working)
            run = _Run(reader, images, segmenter, stream, options, known, working, result)
            failures = run.write(storage_of(source, target, reader), progress)
            if run.done != run.total or not run.done:
                raise DatasetError(
                    f"According to its metadata, {source} has {run.total} images on "
                    f"{images[0].topic}, but it contains {run.done}. The bag is damaged, or the "
                    "metadata belong to another recording. Repair it with `ros2 bag reindex` or "
                    f"`mcap recover`. The results are kept in {working.folder}."
                )
    working.finish()
    return BagReport(images[0].topic, run.done, len(known), failures)


@dataclass(eq=False)
class _Run:
    """Makes one pass over all messages.

    Attributes:
        images: connections of the image topic.
        known: results of an earlier run, and of this one.
        result: see `segment_bag`.
        done: number of finished images.
    """

    reader: Reader
    images: list[Connection]
    segmenter: Segmenter
    stream: Stream
    options: BagOptions
    known: Journal
    working: WorkingFolder
    result: Callable[[int, float | None, Detections], None]
    done: int = 0
    _keyframe_stamp: Any = None

    @property
    def total(self) -> int:
        """Return the number of images according to the bag's metadata."""
        return sum(connection.msgcount for connection in self.images)

    def write(self, storage: Any, progress: Callable[[int, int], None]) -> dict[int, str]:
        """Write the bag; return the failures."""
        working, total = self.working, self.total
        images = {connection.id for connection in self.images}
        failures: dict[int, str] = {}
        working.clear_bag()
        with working.writing():
            working.bag.parent.mkdir()
            writer = Writer(working.bag, version=BAG_VERSION, storage_plugin=storage)
            writer.open()
        try:
            with working.writing():
                copies = copy_connections(writer, self.reader.connections)
                added = [
                    writer.add_connection(topic, kind, typestore=typestore())
                    for topic, kind in self.options.topics().items()
                ]
            progress(0, total)
            for connection, time, data in read_messages(self.reader, self.reader.connections):
                with working.writing():
                    writer.write(copies[connection.id], time, data)
                if connection.id not in images:
                    continue
                entry = self._result(data, connection.msgtype)
                if entry.kind == journal.FAILED:
                    failures[self.done] = entry.content.decode()
                else:
                    found = unpack_detections(entry.content)
                    messages = self._messages(data, connection.msgtype, found)
                    with working.writing():
                        for result, message in zip(added, messages, strict=True):
                            writer.write(result, time, message)
                self.done += 1
                progress(self.done, total)
            with working.writing():
                writer.close()
        except BaseException:
            writer.abort()
            working.clear_bag()  # frees space; the results are in the journal
            raise
        return failures

    def _result(self, data: bytes, kind: str) -> Entry:
        """Return the result of the next image, from the journal or newly computed."""
        if self.done < len(self.known):
            return self.known[self.done]
        try:
            entry = self._segment(data, kind)
        except MessageError as error:
            entry = Entry(journal.FAILED, str(error).encode())
        with self.working.writing():
            self.known.append(entry)
        return entry

    def _segment(self, data: bytes, kind: str) -> Entry:
        header, image = read_image(data, kind)
        stamp = seconds_of(header.stamp)
        detections = self.stream.detect(image, stamp)
        is_keyframe = detections.frame_type == KEYFRAME
        frame_type = journal.KEYFRAME if is_keyframe else journal.PARTIAL
        return Entry(frame_type, pack_detections(detections))

    def _messages(self, data: bytes, kind: str, detections: Detections) -> list[bytes]:
        """Serialize the results of the next image; called for every image in order."""
        options, classes = self.options, self.segmenter.description.model.classes
        header = read_message(data, kind).header
        if detections.frame_type == KEYFRAME:
            self._keyframe_stamp = header.stamp
        stamp = seconds_of(header.stamp)
        detections = self.stream.track(detections, stamp)
        self.result(self.done, stamp, detections)
        messages = [
            serialize_result(
                detections,
                classes,
                header=header,
                keyframe_stamp=self._keyframe_stamp,
                mask_encoding=MASK_ENCODINGS[options.mask_encoding],
            )
        ]
        if options.annotations:
            messages.append(serialize_annotations(detections, classes, header=header))
        if options.overlay:
            _, image = read_image(data, kind)
            messages.append(serialize_overlay(detections, classes, header=header, image=image))
        return messages


def _identity(
    source: Path, topic: str, segmenter: Segmenter, options: BagOptions
) -> dict[str, Any]:
    """Return everything that the results depend on; large files by name, size and time."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    states = [(file.name, file.stat()) for file in files]
    return {
        "bag": str(source.resolve()),
        "files": [(name, state.st_size, state.st_mtime_ns) for name, state in states],
        "model": segmenter.description.identity,
        "target": segmenter.description.target,
        "postprocess": dataclasses.asdict(segmenter.postprocess),
        "keyframes": dataclasses.asdict(options.keyframes),
        "topic": topic,
    }


def _check_room(source: Path, working: WorkingFolder) -> None:
    """Fail early if the copy does not fit on the disk."""
    files = source.iterdir() if source.is_dir() else [source]
    needed = sum(file.stat().st_size for file in files if file.is_file())
    free = shutil.disk_usage(working.folder).free
    if free < needed:
        raise DatasetError(
            f"{working.target} cannot be written: the copy needs {needed / 1e9:.2f} GB, but only "
            f"{free / 1e9:.2f} GB are free. Free some space, or name another target."
        )
