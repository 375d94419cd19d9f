"""Read COCO format as labelling tools write it: several files, prefixes, foreign paths.

Facts: CVAT writes `annotations/instances_SPLIT.json` and `images/`, Roboflow
`SPLIT/_annotations.coco.json` beside its pictures, Label Studio `result.json` with absolute paths
or names with a prefix, Datumaro `annotations/instances_SPLIT.json` and `images/SPLIT/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from yolact_ros.datasets.annotations import AnnotationFile, read_annotation_file
from yolact_ros.datasets.files import PictureFinder, walk
from yolact_ros.datasets.findings import ERROR, NOTE, Findings
from yolact_ros.datasets.importers.foreign import SPLITS, ForeignImage, ForeignInstance
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown

CROWD = "crowd (iscrowd 1), neither object nor background"


def read_coco(
    source: Path, findings: Findings, *, images: Path | None = None, crowd_as_objects: bool = False
) -> tuple[tuple[str, ...], Iterator[ForeignImage]]:
    """Open a data set.

    Args:
        source: an annotation file, or a folder with some.
        findings: receives the findings.
        images: folder of the pictures; defaults to those around the annotation file.
        crowd_as_objects: treat annotations with `iscrowd` as single objects, because CVAT writes
            painted masks that way.

    Returns:
        The class names, and the images of all files.

    Raises:
        DatasetError: there is no COCO instances file.
    """
    read: list[tuple[str, Path, AnnotationFile]] = []
    files = [source] if not source.is_dir() else sorted(walk(source, (".json",)))
    for path in files:
        folder = images or _picture_root(path, source)
        try:
            content = read_annotation_file(path, folder)
        except DatasetError as error:
            if not source.is_dir():
                raise
            findings.add(NOTE, "file without COCO instances", shown(error))
            continue
        if content.ambiguous:
            raise DatasetError(f"{path}: {content.ambiguous[0]}")
        _take_findings(content, findings, crowd_as_objects)
        read.append((_split_of(path, source), folder, content))
    if not read:
        raise DatasetError(
            f"{source} contains no JSON file with COCO instances; name the file, "
            "or the folder that it is in."
        )
    names = dict.fromkeys(
        content.names[number] for _, _, content in read for number in sorted(content.names)
    )
    return tuple(names), _images(read, findings, crowd_as_objects)


def _take_findings(content: AnnotationFile, findings: Findings, crowd_as_objects: bool) -> None:
    """Add the findings of a file."""
    for severity, kind, places in content.findings.ordered():
        if kind == CROWD and crowd_as_objects:
            kind = "crowd (iscrowd 1), imported as an object"
        if crowd_as_objects and kind.startswith("file with many crowds"):
            continue
        for place in places:
            findings.add(severity, kind, place)


def _picture_root(path: Path, source: Path) -> Path:
    """Return the folder in which to search the images of an annotation file."""
    if source.is_dir():
        return path.parent if path.name == "_annotations.coco.json" else source
    parent = path.parent
    return parent.parent if parent.name == "annotations" else parent


def _split_of(path: Path, source: Path) -> str:
    """Return the split in a file name or its folder; otherwise `train`."""
    words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
    parents = path.relative_to(source).parts[:-1] if source.is_dir() else ()
    for word in (*words, *(parent.lower() for parent in reversed(parents))):
        for name in SPLITS:
            if word == name or (word.startswith(name) and word.removeprefix(name).isdigit()):
                return SPLITS[name]
    return "train"


def _images(
    read: list[tuple[str, Path, AnnotationFile]], findings: Findings, crowd_as_objects: bool
) -> Iterator[ForeignImage]:
    for split, folder, content in read:
        find = PictureFinder(*_folders(folder, split))
        for image_id, image in content.images.items():
            path = find(image.file_name)
            name = shown(image.file_name)
            if path is None:
                findings.add(ERROR, "missing image", f"{name} (searched in {shown(folder)})")
                continue
            annotations = content.annotations.pop(image_id, [])
            if not annotations:
                findings.add(NOTE, "image without labels", name)
            instances = [
                ForeignInstance(
                    content.names[a["category_id"]],
                    a["segmentation"],
                    crowd=bool(a["iscrowd"]) and not crowd_as_objects,
                    where=f"annotation {a['id']} in {name}",
                    box=tuple(a["bbox"]) if "box_only" in a else None,
                )
                for a in annotations
            ]
            yield ForeignImage(split, path, image.size, instances)


def _folders(folder: Path, split: str) -> list[Path]:
    """Return folders of images, the most likely one first."""
    names = [word for word, meant in SPLITS.items() if meant == split]
    near = [folder / "images" / name for name in names] + [folder / name for name in names]
    near += [folder / "images"]
    return [folder, *(place for place in near if place.is_dir())]
