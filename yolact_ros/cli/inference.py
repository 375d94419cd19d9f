"""Provide the arguments and steps that all verbs that run a model share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.cli.settings import add_settings, documented, read_settings
from yolact_ros.config import (
    DEFAULT_MODEL,
    REFERENCE_POSTPROCESS,
    BackendConfig,
    KeyframeConfig,
    PostprocessConfig,
    TrackerConfig,
)
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown

if TYPE_CHECKING:
    from yolact_ros.runtime.detections import Detections
    from yolact_ros.runtime.images.files import Source, SourceImage
    from yolact_ros.runtime.segmenter import Segmenter
    from yolact_ros.runtime.stream import Stream

MODEL = "shipped model, bundle folder or checkpoint file"
DETECTIONS = PostprocessConfig()


def check_sources(names: Sequence[Path | str]) -> None:
    """Fail early if no source exists, because exporting a model can take minutes.

    Raises:
        DatasetError: no file exists, or nothing matches a pattern.
    """
    from yolact_ros.runtime.images.files import find_sources

    if any(Path(name).exists() for name in names):
        return
    sources = find_sources(names)
    if all(isinstance(source, Path) and not source.exists() for source in sources):
        raise DatasetError(f"{shown(sources[0])} cannot be read: it does not exist.")


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and the flags that `open_segmenter` and `open_stream` read."""
    add_model_argument(parser)
    add_segmenter_arguments(parser)
    add_stream_arguments(parser)


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--model`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="MODEL", help=MODEL)


def add_segmenter_arguments(
    parser: argparse.ArgumentParser, detections: PostprocessConfig = DETECTIONS
) -> None:
    """Add the flags that `open_segmenter` reads, except the model.

    Args:
        parser: parser of the verb.
        detections: the verb's defaults.

    Options:
        --reference: select detections exactly as the authors' evaluation does; the flags below
            override individual settings.
    """
    add_settings(parser.add_argument_group("backend"), BackendConfig())
    group = parser.add_argument_group("detections")
    documented(group, add_segmenter_arguments)("--reference", action="store_true")
    add_settings(group, detections)


def add_stream_arguments(parser: argparse.ArgumentParser, *, tracker: bool = True) -> None:
    """Add the flags that `open_stream` reads; those of the tracker are optional."""
    title = "videos (feature reuse requires a model that was exported with --keyframes)"
    add_settings(parser.add_argument_group(title), KeyframeConfig())
    if tracker:
        add_settings(parser.add_argument_group("tracking, in videos"), TrackerConfig())


def read_postprocess(
    arguments: argparse.Namespace, detections: PostprocessConfig = DETECTIONS
) -> PostprocessConfig:
    """Return the settings of detections that `add_segmenter_arguments` declared.

    Raises:
        ConfigError: a value is out of range.
    """
    return read_settings(arguments, REFERENCE_POSTPROCESS if arguments.reference else detections)


def open_segmenter(
    arguments: argparse.Namespace, detections: PostprocessConfig = DETECTIONS
) -> Segmenter:
    """Open the model that the arguments name.

    Args:
        arguments: parsed arguments of `add_segmenter_arguments`, with `model`.
        detections: the verb's defaults.

    Raises:
        YolactError: the model cannot be opened or does not support the settings.
    """
    from yolact_ros.runtime.segmenter import Segmenter

    return Segmenter.open(
        arguments.model,
        postprocess=read_postprocess(arguments, detections),
        backend=read_settings(arguments, BackendConfig()),
    )


def open_stream(arguments: argparse.Namespace, segmenter: Segmenter) -> Stream:
    """Open a stream with the settings of `add_stream_arguments`.

    Raises:
        ConfigError: the model does not support the settings, or a value is out of range.
    """
    return segmenter.stream(
        read_settings(arguments, KeyframeConfig()),
        tracker=read_settings(arguments, TrackerConfig()),
    )


def segment_files(
    arguments: argparse.Namespace, segmenter: Segmenter, files: Sequence[Source]
) -> Iterator[tuple[SourceImage, Detections | None]]:
    """Segment images and videos, with a progress bar; each video is a separate stream.

    Args:
        arguments: parsed arguments of `add_stream_arguments`, with the name of the verb.
        segmenter: open segmenter.
        files: image and video files, cameras and streams.

    Yields:
        Each frame with its detections, or with None if the file cannot be read.
    """
    from tqdm import tqdm

    from yolact_ros.runtime.images.files import count_frames, is_video, read_frames

    streams = {file: open_stream(arguments, segmenter) for file in files if is_video(file)}
    bar = tqdm(
        read_frames(files),
        total=count_frames(files),
        desc=arguments.verb,
        unit="image",
        mininterval=0.5,
    )
    with bar:
        for frame in bar:
            if frame.image is None:
                yield frame, None
            elif stream := streams.get(frame.path):
                yield frame, stream.segment(frame.image, frame.stamp)
            else:
                yield frame, segmenter.segment(frame.image)


def report_faults(arguments: argparse.Namespace, faults: Sequence[str]) -> int:
    """Print which files or images could not be read, and why; return the exit status."""
    for fault in faults:
        print(f"yolact {arguments.verb}: {fault}", file=sys.stderr)
    if faults:
        message = f"{len(faults)} could not be read; all others were segmented."
        print(f"yolact {arguments.verb}: {message}", file=sys.stderr)
    return 1 if faults else 0
