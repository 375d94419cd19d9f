"""Read annotation files in one place, so that import, check and training agree.

Everything that a file states (ids, flags, sizes, names) is normalised here and compared with what
it states elsewhere; unusable entries are counted in the findings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolact_ros.datasets.files import (
    PictureFinder,
    clean_name,
    flag,
    picture_size,
    read_text,
    stated_size,
    whole_number,
)
from yolact_ros.datasets.findings import ERROR, WARNING, Findings
from yolact_ros.datasets.masks import MAX_AREA
from yolact_ros.datasets.shapes import read_shapes
from yolact_ros.datasets.youtube_vis import frames_as_images, is_video_format
from yolact_ros.errors import DatasetError
from yolact_ros.files import MAX_BYTES, shown

MANY_CROWDS = 0.1  # fraction of the annotations; COCO itself has 0.01


@dataclass(frozen=True)
class ImageEntry:
    """Describes an entry of `images`.

    Attributes:
        image_id: unique number of the image within the file.
        file_name: as written in the file.
        size: (height, width) that the annotations refer to; None if unknown.
        video_id: the video of a frame; None for a single image.
    """

    image_id: int
    file_name: str
    size: tuple[int, int] | None
    video_id: Any = None


@dataclass
class AnnotationFile:
    """Holds the normalised content of an annotation file.

    Attributes:
        path: the file.
        names: class name by category id; categories with the same name are merged.
        unnamed: the ids of categories without a name.
        images: entries by image id, in file order.
        annotations: usable annotations by image id, in COCO's format: `id`, `category_id`,
            `segmentation`, `iscrowd` (0 or 1), and `bbox`, `area`, `track_id` if they are known
            and agree with the mask. One with a box but no mask has `box_only`, the box as its
            segmentation, and is a crowd: neither object nor background.
        findings: everything that was found.
        ambiguous: contradictory statements; a file with any cannot be used.
    """

    path: Path
    names: dict[int, str] = field(default_factory=dict)
    unnamed: set[int] = field(default_factory=set)
    images: dict[int, ImageEntry] = field(default_factory=dict)
    annotations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    ambiguous: list[str] = field(default_factory=list)


def read_annotation_file(path: Path, folder: Path, *, places: int | None = None) -> AnnotationFile:
    """Read a file in COCO or YouTube-VIS format.

    Args:
        path: the file.
        folder: image folder; headers are read if the file does not state a size.
        places: maximum number of kept places per finding; None keeps all.

    Raises:
        DatasetError: the file cannot be read or has another format.
    """
    content = read_annotations(path)
    read = AnnotationFile(path, findings=Findings(limit=places))
    categories = _read_categories(content["categories"], read)
    images = _read_images(content["images"], read, PictureFinder(folder))
    _read_entries(content["annotations"], images, categories, read)
    return read


def read_annotations(path: Path) -> dict[str, Any]:
    """Read the JSON; frames of videos become images.

    Returns:
        At least `images`, `annotations` and `categories`; their entries are unchecked.

    Raises:
        DatasetError: the file cannot be read or has another format.
    """
    content = read_json(path)
    if isinstance(content, dict) and is_video_format(content):
        try:
            content = frames_as_images(content)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error
    keys = ("images", "annotations", "categories")
    lists = content if isinstance(content, dict) else {}
    missing = [key for key in keys if not isinstance(lists.get(key), list)]
    if missing:
        raise DatasetError(
            f"The annotation file {path} lacks a list of {', '.join(missing)}; expected "
            "instances in COCO format."
        )
    return content


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """Read any JSON file.

    Raises:
        DatasetError: it cannot be read, is not JSON or is nested too deeply.
    """
    text = read_text(path, limit)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DatasetError(f"The annotation file {shown(path)} is not JSON: {reason}.") from error


def _key(value: Any) -> int | str | None:
    """Return the key of an entry: a number if it can be read as one, otherwise text."""
    number = whole_number(value)
    if number is None and isinstance(value, str) and value.strip():
        return value.strip()
    return number


def _number(keys: Iterable[int | str]) -> dict[int | str, int]:
    """Return a number for each key: the key itself, or its position if some keys are text."""
    keys = list(keys)
    if all(isinstance(key, int) for key in keys):
        return {key: int(key) for key in keys}
    return {key: number for number, key in enumerate(keys, start=1)}


def _read_categories(entries: list[Any], read: AnnotationFile) -> dict[int | str, int]:
    """Fill `read.names`; return the category id of each stated id."""
    given: dict[int | str, str | None] = {}
    for index, entry in enumerate(entries):
        key = _key(entry.get("id")) if isinstance(entry, dict) else None
        if key is None:
            read.findings.add(ERROR, "category without a usable id", f"entry {index}")
            continue
        name = entry.get("name")
        name = clean_name(name) if isinstance(name, (str, int, float)) else None
        if key in given:
            read.findings.add(ERROR, "category id used twice", f"id {key}")
            if given[key] != name:
                read.ambiguous.append(
                    f"category id {key} is both {given[key]!r} and {name!r}; give each class a "
                    "unique id."
                )
            continue
        if not name:
            read.findings.add(WARNING, "category without a name", f"id {key}")
        given[key] = name or None
    numbers = _number(given)
    first: dict[str, int | str] = {}
    folded: dict[str, str] = {}
    meaning: dict[int | str, int] = {}
    for key, name in given.items():
        label = name or str(key)
        owner = first.setdefault(label, key)
        meaning[key] = numbers[owner]
        if owner != key:
            where = f"{label} (ids {owner} and {key})"
            read.findings.add(WARNING, "categories with the same name, merged", where)
            continue
        read.names[numbers[key]] = label
        if name is None:
            read.unnamed.add(numbers[key])
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            kind = "categories whose names differ only in case"
            read.findings.add(WARNING, kind, f"{other} and {label}")
    return meaning


def _read_images(
    entries: list[Any], read: AnnotationFile, find: PictureFinder
) -> dict[int | str, int]:
    """Fill `read.images`; return the image id of each stated id."""
    usable: dict[int | str, Mapping[str, Any]] = {}
    names: set[str] = set()
    for index, entry in enumerate(entries):
        key = _key(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if key is None or not isinstance(name, str) or not name.strip() or "\0" in name:
            read.findings.add(
                ERROR, "image entry without a usable id or file_name", f"entry {index}"
            )
            continue
        if key in usable:
            read.findings.add(ERROR, "image id used twice", f"id {key}")
            read.ambiguous.append(
                f"several images have the same id {key}, so it is unknown which of them an "
                "annotation belongs to."
            )
            continue
        if name in names:
            read.findings.add(WARNING, "file listed twice", shown(name))
        names.add(name)
        usable[key] = entry
    numbers = _number(usable)
    for key, entry in usable.items():
        read.images[numbers[key]] = ImageEntry(
            image_id=numbers[key],
            file_name=entry["file_name"],
            size=_size_of(entry, read, find),
            video_id=entry.get("video_id"),
        )
    return numbers


def _size_of(
    entry: Mapping[str, Any], read: AnnotationFile, find: PictureFinder
) -> tuple[int, int] | None:
    size = stated_size(entry.get("height"), entry.get("width"))
    if size and size[0] * size[1] <= MAX_AREA:
        return size
    name = shown(entry["file_name"])
    if entry.get("height") is not None or entry.get("width") is not None:
        stated = f"{name}: {entry.get('width')!r:.20}x{entry.get('height')!r:.20}"
        read.findings.add(WARNING, "image with an invalid size; its file's size is used", stated)
    path = find(entry["file_name"])
    return picture_size(path) if path else None


def _read_entries(
    entries: list[Any],
    images: Mapping[int | str, int],
    categories: Mapping[int | str, int],
    read: AnnotationFile,
) -> None:
    """Fill `read.annotations`."""
    ids: set[int | str] = set()
    corner_boxes = boxes = 0
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            read.findings.add(ERROR, "annotation that is not an object", f"entry {index}")
            continue
        key = _key(entry.get("id"))
        where = f"annotation {shown(f'entry {index}' if key is None else key)}"
        image_id = images.get(_key(entry.get("image_id")))  # type: ignore[arg-type]
        if image_id is None:
            stated = f"{where}: {shown(repr(entry.get('image_id'))[:40])}"
            read.findings.add(ERROR, "annotation of an unknown image", stated)
            continue
        image = read.images[image_id]
        where += f" in {shown(image.file_name)}"
        category_id = categories.get(_key(entry.get("category_id")))  # type: ignore[arg-type]
        if category_id is None:
            stated = f"{where}: {shown(repr(entry.get('category_id'))[:40])}"
            read.findings.add(ERROR, "annotation of an unknown category", stated)
            continue
        if key is not None:
            if key in ids:
                read.findings.add(WARNING, "annotation id used twice", where)
            ids.add(key)
        crowd = flag(entry.get("iscrowd"))
        if crowd is None:
            read.findings.add(ERROR, "annotation whose iscrowd is neither 0 nor 1", where)
            continue
        if image.size is None:
            read.findings.add(ERROR, "annotation of an image with unknown size", where)
            continue
        usable = read_shapes(entry, image.size, crowd, where, read.findings)
        if usable is None:
            continue
        if "corners" in usable:
            corner_boxes += bool(usable.pop("corners"))
            boxes += 1
        if "track_id" in entry:
            track = whole_number(entry["track_id"])
            usable["track_id"] = index if track is None else track
        usable.update(id=entry.get("id", index + 1), category_id=category_id)
        read.annotations.setdefault(image_id, []).append(usable)
    usable_ones = [a for group in read.annotations.values() for a in group]
    crowds = sum(a["iscrowd"] and "box_only" not in a for a in usable_ones)
    if crowds > MANY_CROWDS * len(usable_ones):
        kind = (
            "file with many crowds; if they are objects (CVAT exports painted masks as crowds), "
            "use `yolact import-dataset coco --crowd-as-objects`"
        )
        read.findings.add(WARNING, kind, f"{crowds} of {len(usable_ones)} annotations")
    if corner_boxes > boxes // 2:
        kind = "file whose boxes look like x1, y1, x2, y2; expected x, y, width, height"
        read.findings.add(WARNING, kind, f"{corner_boxes} boxes")
    with_tracks = sum("track_id" in a for a in usable_ones)
    if 0 < with_tracks < len(usable_ones):
        for group in read.annotations.values():
            for annotation in group:
                annotation.pop("track_id", None)
        kind = (
            "file in which only some annotations have a track_id, so that track ids are not used"
        )
        read.findings.add(WARNING, kind, f"{with_tracks} annotations")
