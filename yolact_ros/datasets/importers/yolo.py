"""Read YOLO data sets with polygons: a YAML file, `images/`, `labels/`.

A line of a label file is a class number and x1 y1 x2 y2 ... as fractions of the image's sides.
Facts about the programs: Ultralytics resolves paths against the YAML's folder, its own data
folder or the current one; Roboflow writes `../train/images` for a folder beside the YAML and
names splits that it does not export; CVAT writes lists of paths with a prefix `data/`; Label
Studio writes `classes.txt` and no YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from yolact_ros.datasets.files import (
    PictureFinder,
    clean_name,
    is_regular,
    list_images,
    picture_size,
    read_text,
    walk,
    whole_number,
)
from yolact_ros.datasets.findings import ERROR, NOTE, WARNING, Findings
from yolact_ros.datasets.importers.foreign import SPLITS, ForeignImage, ForeignInstance
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown

BOXES = ("ignore", "rectangle", "keep", "drop")
DESCRIPTIONS = ("data.yaml", "dataset.yaml")
CLASSES_FILE = "classes.txt"
OUTSIDE = 0.1  # fraction of a side by which a corner may be outside the image


def read_yolo(
    source: Path, findings: Findings, *, boxes: str = "ignore"
) -> tuple[tuple[str, ...], Iterator[ForeignImage]]:
    """Open a data set.

    Args:
        source: the YAML file that describes it, or its folder.
        findings: receives the findings.
        boxes: what to do with a row that has a box instead of a polygon: `drop` leaves the object
            in the background, `rectangle` uses the box as its mask, `ignore` makes it a crowd,
            `keep` writes the box without a mask.

    Returns:
        The class names, and the images of all splits.

    Raises:
        DatasetError: the description is missing or names no classes or no images.
    """
    path = _description(source)
    if path.suffix == ".txt":  # Label Studio's
        names = {i: n for i, n in enumerate(read_text(path).splitlines()) if n.strip()}
        content: dict[str, Any] = {"names": names, "train": "images"}
    else:
        content = _read_yaml(path)
    classes = _names(content.get("names"), path)
    splits = [(SPLITS[key], content[key]) for key in SPLITS if content.get(key)]
    if not splits:
        raise DatasetError(f"{path} names no images: expected some of {', '.join(SPLITS)}.")
    reader = _Reader(path, content.get("path"), classes, findings, boxes)
    return tuple(dict.fromkeys(classes.values())), reader.read(splits)


def _description(source: Path) -> Path:
    """Return the YAML of a folder, or Label Studio's list of classes."""
    if not source.is_dir():
        return source
    found = [source / name for name in DESCRIPTIONS if is_regular(source / name)]
    found = found or sorted(p for p in source.iterdir() if p.suffix in (".yaml", ".yml"))
    if not found and is_regular(source / CLASSES_FILE):
        return source / CLASSES_FILE
    if len(found) > 1 and found[0].name not in DESCRIPTIONS:
        names = ", ".join(p.name for p in found)
        raise DatasetError(
            f"{source} contains several YAML files ({names}); name the one to read."
        )
    if not found:
        raise DatasetError(
            f"{source} cannot be read as a YOLO data set: it contains neither a YAML file nor "
            f"{CLASSES_FILE}. Name the YAML file."
        )
    return found[0]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        reason = str(error) or "it is nested too deeply"
        raise DatasetError(f"{path} cannot be read as YAML: {reason:.300}.") from error
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path} does not describe a YOLO data set; expected a mapping with "
            "`names`, and `train` or `val`."
        )
    return content


def _names(names: Any, path: Path) -> dict[int, str]:
    """Return class names by number.

    Raises:
        DatasetError: there are none, or a key is not a number.
    """
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DatasetError(f"{path} lacks `names`, a list of the classes.")
    numbered = {whole_number(key): clean_name(name) for key, name in names.items()}
    if None in numbered or len(numbered) < len(names) or not all(numbered.values()):
        raise DatasetError(f"{path}: `names` must map class numbers to names.")
    return {number: numbered[number] for number in sorted(n for n in numbered if n is not None)}


class _Reader:
    """Reads the splits that one description names."""

    def __init__(
        self, path: Path, root: Any, classes: dict[int, str], findings: Findings, boxes: str
    ) -> None:
        self.path, self.classes, self.findings, self.boxes = path, classes, findings, boxes
        base, text = path.parent, str(root or "")
        self.roots = list(
            dict.fromkeys(
                [base / text, Path(text), base, base.parent / text, base / Path(text).name]
            )
        )
        self.find = PictureFinder(*self.roots[:1], base)

    def read(self, splits: list[tuple[str, Any]]) -> Iterator[ForeignImage]:
        """Yield the images of the splits; those without a label file are counted."""
        used: set[Path] = set()
        looked: list[Path] = []
        total = 0
        for split, entries in splits:
            for entry in entries if isinstance(entries, list) else [entries]:
                for image in self._images(split, str(entry)):
                    total += 1
                    label, places = _label_of(image)
                    instances: list[ForeignInstance] = []
                    if label is None:
                        self.findings.add(NOTE, "image without labels", shown(image))
                        looked = looked or places
                    else:
                        used.add(label.resolve())
                        instances = self._labels(label)
                    yield _in_pixels(ForeignImage(split, image, None, instances), self.findings)
        if total and not used:
            places_text = ", ".join(map(shown, looked))
            raise DatasetError(
                f"None of the {total} images has a label file. For the first one, these were "
                f"searched: {places_text}."
            )
        for folder in {path.parent for path in used}:
            for path in sorted(walk(folder, (".txt",))):
                if path.resolve() not in used and path.name != CLASSES_FILE:
                    self.findings.add(WARNING, "labels without an image", shown(path))

    def _images(self, split: str, entry: str) -> list[Path]:
        candidates = [root / entry for root in self.roots]
        candidates += [self.path.parent / entry.replace("\\", "/")]
        inner = entry
        while inner.startswith("../"):
            inner = inner.removeprefix("../")
            candidates += [root / inner for root in self.roots]
        for place in candidates:
            if is_regular(place):
                return self._listed(place)
            try:
                if place.is_dir():
                    return list_images(place)
            except (OSError, DatasetError):
                continue
        severity = NOTE if split == "test" else ERROR
        where = f"{split}: {shown(entry)} (searched in {shown(self.roots[0])} and around it)"
        self.findings.add(severity, "split without images", where)
        return []

    def _listed(self, place: Path) -> list[Path]:
        """Return the images of a list file, whose paths are relative to it or to the data set."""
        images = []
        for line in read_text(place).splitlines():
            if not line.strip():
                continue
            near = place.parent / line.strip().replace("\\", "/")
            image = near if is_regular(near) else self.find(line.strip())
            if image is None:
                self.findings.add(ERROR, "missing image", f"{shown(place)}: {shown(line.strip())}")
            else:
                images.append(image)
        return images

    def _labels(self, path: Path) -> list[ForeignInstance]:
        try:
            lines = read_text(path).splitlines()
        except DatasetError as error:
            self.findings.add(ERROR, "label file that cannot be read", str(error))
            return []
        return read_label(lines, self.classes, self.findings, name=shown(path), boxes=self.boxes)


def _label_of(image: Path) -> tuple[Path | None, list[Path]]:
    """Return the label file of an image, and where it was searched for.

    Any folder `images` of the path may be `labels`, the last one first; or it is beside the
    image.
    """
    places = []
    for i in range(len(image.parts) - 2, -1, -1):
        if image.parts[i] == "images":
            parts = (*image.parts[:i], "labels", *image.parts[i + 1 :])
            places.append(Path(*parts).with_suffix(".txt"))
    places.append(image.with_suffix(".txt"))
    places.append(image.parent.parent / "labels" / f"{image.stem}.txt")
    places.append(image.parent / "labels" / f"{image.stem}.txt")
    return next((place for place in places if is_regular(place)), None), places


def read_label(
    lines: list[str],
    classes: dict[int, str],
    findings: Findings,
    *,
    name: str,
    boxes: str = "ignore",
) -> list[ForeignInstance]:
    """Read the rows of a label file.

    Args:
        lines: lines of the file.
        classes: names by class number.
        findings: receives what cannot be used.
        name: file name, for the findings.
        boxes: see `read_yolo`.

    Returns:
        Instances whose coordinates are still fractions.
    """
    instances = []
    for number, line in enumerate(lines, start=1):
        where = f"{name}:{number}"
        if not line.strip():
            continue
        try:
            class_number, *values = (float(word) for word in line.split())
        except ValueError:
            findings.add(ERROR, "row that is not numbers", where)
            continue
        class_name = classes.get(whole_number(class_number), "")  # type: ignore[arg-type]
        if not class_name:
            findings.add(
                ERROR, "annotation of an unknown class", f"{where}: {line.split()[0]:.20}"
            )
        elif not all(-OUTSIDE <= v <= 1 + OUTSIDE for v in values):
            kind = "row whose coordinates are not fractions of the image"
            findings.add(ERROR, kind, where)
        elif len(values) == 4:
            severity = ERROR if boxes == "drop" else NOTE
            kind = {
                "drop": "box without a mask, left in the background",
                "rectangle": "box without a mask, imported as a rectangle",
                "ignore": "box without a mask, neither object nor background",
                "keep": "box without a mask, which counts only with training.learn_boxes",
            }[boxes]
            findings.add(severity, kind, where)
            if boxes != "drop":
                x, y, w, h = values
                left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
                polygon = [left, top, right, top, right, bottom, left, bottom]
                crowd = boxes == "ignore"
                box = (left, top, w, h) if boxes == "keep" else None
                instances.append(ForeignInstance(class_name, [polygon], crowd, where, box))
        elif len(values) < 6 or len(values) % 2:
            findings.add(ERROR, "annotation without a usable polygon", where)
        else:
            instances.append(ForeignInstance(class_name, [values], where=where))
    return instances


def _in_pixels(image: ForeignImage, findings: Findings) -> ForeignImage:
    """Convert fractions to pixels of the image as displayed."""
    size = picture_size(image.path)
    if size is None:
        return replace(image, instances=())  # counted as unreadable
    height, width = size
    instances = [
        replace(
            instance,
            segmentation=[
                [round(v * (height if i % 2 else width), 2) for i, v in enumerate(polygon)]
                for polygon in instance.segmentation
            ],
            box=instance.box
            and tuple(v * (height if i % 2 else width) for i, v in enumerate(instance.box)),
        )
        for instance in image.instances
    ]
    return replace(image, size=size, instances=instances)
