"""Read images annotated with LabelMe or compatible programs: one JSON file per image.

Facts: the files that wkentaro/labelme and CVHub520/X-AnyLabeling write (`shapes` with `label`,
`points`, `shape_type`, `group_id`, `mask`; `imagePath` beside the file, or the image itself in
`imageData`; `imageHeight` and `imageWidth` of the image that was annotated).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolact_ros.datasets.annotations import read_json
from yolact_ros.datasets.files import (
    IMAGE_SUFFIXES,
    MAX_PICTURE_BYTES,
    PictureFinder,
    clean_name,
    picture_size,
    stated_size,
    walk,
)
from yolact_ros.datasets.findings import ERROR, NOTE, WARNING, Findings
from yolact_ros.datasets.importers.foreign import ForeignImage, ForeignInstance, encode_mask
from yolact_ros.datasets.masks import read_segmentation, segmentation_rle
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown
from yolact_ros.runtime.images.headers import read_header

CIRCLE_CORNERS = 32
# Shapes whose points are the corners of their outline, whatever the program calls them.
OUTLINES = ("polygon", "rectangle", "rotation", "oriented_rectangle", "quadrilateral")


def read_labelme(source: Path, findings: Findings) -> Iterator[ForeignImage]:
    """Read a folder and its subfolders; folders `train`, `val` and `test` are the splits.

    Args:
        source: the folder.
        findings: receives the findings.

    Raises:
        DatasetError: there is no annotation file.
    """
    files = sorted(walk(source, (".json",)))
    find = PictureFinder(source)
    used: set[Path] = set()
    read = 0
    for path in files:
        try:
            content = read_json(path, 4 * MAX_PICTURE_BYTES)
        except DatasetError as error:
            findings.add(ERROR, "file that cannot be read", shown(error))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            findings.add(WARNING, "JSON file without LabelMe's list of shapes", shown(path))
            continue
        read += 1
        image = _read_file(path, content, find, findings, source)
        if image is not None:
            used.add(image.path.resolve())
            yield image
    if not read:
        raise DatasetError(
            f"{source} contains no LabelMe JSON file; name the folder with the JSON files."
        )
    for image_path in sorted(walk(source, IMAGE_SUFFIXES)):
        if image_path.resolve() not in used:
            findings.add(NOTE, "image without labels, skipped", shown(image_path))


def _read_file(
    path: Path, content: Mapping[str, Any], find: PictureFinder, findings: Findings, source: Path
) -> ForeignImage | None:
    stated = content.get("imagePath")
    name = stated if isinstance(stated, str) and stated.strip() else ""
    image = _find_picture(path, name, find)
    data = None
    embedded = content.get("imageData")
    if image is None and isinstance(embedded, str) and embedded:
        try:
            data = base64.b64decode(embedded.partition(",")[2] or embedded, validate=True)
        except (ValueError, binascii.Error):
            findings.add(ERROR, "imageData that is not base64", shown(path))
            return None
        base = name.replace("\\", "/").rsplit("/", 1)[-1]
        image = path.with_name(base if Path(base).suffix else f"{path.stem}.png")
    if image is None:
        kind = "labels without an image"
        findings.add(ERROR, kind, f"{shown(path)}: {shown(name) or 'no imagePath'}")
        return None
    size = stated_size(content.get("imageHeight"), content.get("imageWidth"))
    size = size or picture_size(image if data is None else data)
    split = next(
        (s for s in ("train", "val", "test") if s in path.relative_to(source).parts), "train"
    )
    shapes = read_shapes(content["shapes"], size, findings, name=shown(path))
    return ForeignImage(split, image, size, shapes, data)


def _find_picture(path: Path, name: str, find: PictureFinder) -> Path | None:
    near = PictureFinder(path.parent)
    if name:
        beside = near(name.replace("\\", "/"))
        return beside or find(name)
    for suffix in IMAGE_SUFFIXES:
        for spelling in (suffix, suffix.upper()):
            found = near(path.with_suffix(spelling).name)
            if found is not None:
                return found
    return None


def read_shapes(
    shapes: list[Any], size: tuple[int, int] | None, findings: Findings, *, name: str
) -> list[ForeignInstance]:
    """Convert the shapes of an image to instances; those with the same group and label are one.

    Args:
        shapes: shapes of the file.
        size: (height, width) of the annotated image; required for masks.
        findings: receives what cannot be used.
        name: file name, for the findings.
    """
    parts: dict[tuple[str, str], list[Any]] = {}
    places: dict[tuple[str, str], str] = {}
    for number, shape in enumerate(shapes):
        where = f"{name}, shape {number}"
        label = shape.get("label") if isinstance(shape, dict) else None
        text = clean_name(label) if isinstance(label, (str, int, float)) else ""
        points = _points(shape.get("points")) if isinstance(shape, dict) else None
        if not text or points is None:
            findings.add(ERROR, "shape without label or points", where)
            continue
        kind = shape.get("shape_type") or "polygon"
        part: Any = None
        if kind == "mask":
            part = _mask(shape.get("mask"), points, size)
        elif isinstance(kind, str):
            polygon = _polygon(kind, points)
            part = None if polygon is None else [polygon.round(2).ravel().tolist()]
        if part is None:
            findings.add(ERROR, f"shape without an area: {str(kind)[:40]}", where)
            continue
        group = shape.get("group_id")
        key = text, f"alone {number}" if group is None else json.dumps(group, default=str)
        parts.setdefault(key, []).append(part)
        places.setdefault(key, where)
    return [
        ForeignInstance(key[0], _join(group, size), where=places[key])
        for key, group in parts.items()
    ]


def _points(points: Any) -> np.ndarray | None:
    """Return (N, 2) float64, or None unless it is a list of finite x y pairs."""
    try:
        values = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if not isinstance(points, list) or values.ndim != 2 or values.shape[1] != 2:
        return None
    return values if np.isfinite(values).all() else None


def _polygon(kind: str, points: np.ndarray) -> np.ndarray | None:
    """Return the (N, 2) corners of a shape; None for one without area."""
    if kind in OUTLINES and len(points) >= 3:
        return points
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if kind == "circle" and len(points) == 2:  # its centre, and a point on its edge
        radius = np.linalg.norm(points[1] - points[0])
        angles = np.arange(CIRCLE_CORNERS) * (2 * np.pi / CIRCLE_CORNERS)
        circle: np.ndarray = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        return circle
    return None


def _mask(text: Any, points: np.ndarray, size: tuple[int, int] | None) -> dict[str, Any] | None:
    """Return the RLE of a mask, which is a PNG of the region between two corners, inclusive."""
    if size is None or not isinstance(text, str) or len(points) != 2:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    header = read_header(data)
    (x1, y1), (x2, y2) = np.rint(np.sort(points, axis=0)).astype(np.int64).tolist()
    if header is None or header.stored != (y2 - y1 + 1, x2 - x1 + 1):
        return None
    if x1 < 0 or y1 < 0 or x2 >= size[1] or y2 >= size[0]:
        return None
    part = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if part is None:
        return None
    mask = np.zeros(size, np.uint8)
    mask[y1 : y2 + 1, x1 : x2 + 1] = part > 0
    return encode_mask(mask)


def _join(group: list[Any], size: tuple[int, int] | None) -> Any:
    """Join the parts of an instance: polygons, or RLE if any part is RLE."""
    if all(isinstance(part, list) for part in group):
        return [polygon for part in group for polygon in part]
    if len(group) == 1 or size is None:
        return group[0]
    from pycocotools import mask as rle_masks

    usable = [part for part in group if not isinstance(read_segmentation(part, size), str)]
    whole = rle_masks.merge([segmentation_rle(part, *size) for part in usable])
    return {"size": list(size), "counts": whole["counts"].decode()}
