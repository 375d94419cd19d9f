"""`yolact predict`: segment images, folders, videos, webcams and streams."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.inference import (
    add_inference_arguments,
    open_segmenter,
    report_faults,
    segment_files,
)
from yolact_ros.cli.overlays import Window
from yolact_ros.cli.settings import FILE, FLAG, FOLDER, documented
from yolact_ros.errors import ConfigError
from yolact_ros.files import write_json

if TYPE_CHECKING:
    from yolact_ros.runtime.detections import Detections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact predict`.

    Example:
        pictures/ --model tools --overlay out/overlays

    Options:
        images: image, folder, video, quoted pattern, webcam index or stream address, e.g.
            rtsp://HOST/PATH.
        --json: write boxes, scores and masks (COCO RLE) to this file.
        --overlay: write images and videos with the instances drawn on them to this folder.
        --save-txt: write the polygons of each image to a text file in YOLO format in this folder.
        --show: show the results in a window.
        --classes: find only these classes, e.g. mug,duck.
    """
    add = documented(parser, add_arguments)
    add(
        "images",
        nargs="+",
        type=lambda text: text if "://" in text else Path(text),
        metavar="SOURCE",
    )
    add("--json", **FILE)
    add("--overlay", **FOLDER)
    add("--save-txt", **FOLDER)
    add("--show", **FLAG)
    add("--classes", metavar="A,B,C")
    add_inference_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment everything; return 1 if a file could not be read."""
    from tqdm import tqdm

    from yolact_ros.cli.overlays import Overlays, Texts
    from yolact_ros.runtime.images.files import find_sources
    from yolact_ros.runtime.output.draw import draw_detections
    from yolact_ros.runtime.output.entries import describe, yolo_rows

    sources = find_sources(arguments.images)
    overlays = Overlays(arguments.overlay, sources) if arguments.overlay else None
    window = Window("yolact predict") if arguments.show else None
    entries: list[dict[str, Any]] = []
    faults: list[str] = []
    with open_segmenter(arguments) as segmenter:
        classes = segmenter.description.model.classes
        wanted = chosen_classes(arguments.classes, classes)
        quiet = overlays or window or arguments.json or arguments.save_txt
        texts = Texts(arguments.save_txt, sources, classes) if arguments.save_txt else None
        try:
            for frame, found in segment_files(arguments, segmenter, sources):
                if frame.image is None or found is None:
                    faults.append(frame.fault)
                    continue
                if wanted:
                    found = found.with_classes(wanted)
                if overlays or window:
                    drawn = draw_detections(frame.image, found, classes)
                    if overlays:
                        overlays.write(frame, drawn)
                    if window:
                        window.show(drawn)
                if arguments.json:
                    entries.append(describe(frame.name, found, classes, frame.stamp))
                if texts:
                    texts.write(frame, yolo_rows(found))
                if not quiet:
                    tqdm.write(summarise(frame.name, found, classes), file=sys.stdout)
                if window and window.closed:
                    break
            else:
                if window:
                    window.wait()
        finally:  # an interrupted run keeps its results
            if overlays:
                overlays.close()
            if window:
                window.close()
            if arguments.json:
                write_json(arguments.json, entries)
    for written in (arguments.overlay, arguments.json, arguments.save_txt):
        if written:
            print(f"Wrote {written}")
    return report_faults(arguments, faults)


def chosen_classes(text: str | None, classes: tuple[str, ...]) -> list[str]:
    """Split A,B,C into class names; return none without a text.

    Raises:
        ConfigError: the model does not have the class; the message suggests the likely one.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in classes:
            likely = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean {likely[0]!r}?" if likely else f"it has: {', '.join(classes)}."
            raise ConfigError(f"The model has no class {name!r}; {hint}")
    return names


def summarise(name: str, found: Detections, classes: tuple[str, ...]) -> str:
    """Return a line with the number of instances of each class in an image."""
    counts = Counter(classes[class_id] for class_id in found.class_ids)
    seen = ", ".join(f"{count} {class_name}" for class_name, count in counts.most_common())
    return f"{name}: {seen or 'nothing'}"
