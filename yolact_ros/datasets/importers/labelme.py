"""Pictures annotated with LabelMe: a JSON file beside each image.

Facts: the files that wkentaro/labelme writes (`shapes` with `label`, `points`, `shape_type`,
`group_id`; `imagePath` beside the file, or the image itself in `imageData`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.datasets.files import image_size
from yolact_ros.datasets.importers.coco_writer import ForeignImage, ForeignInstance
from yolact_ros.errors import DatasetError

CIRCLE_CORNERS = 32


def read_labelme(source: Path, *, validation: float = 0.0) -> Iterator[ForeignImage]:
    """Read a folder and the folders below it.

    Args:
        source: the folder. Where it has folders `train` and `val`, they are the splits.
        validation: share of the images, 0 to 1, that become `val` otherwise; which ones follows
            from their names, so that it stays the same when images are added.

    Raises:
        DatasetError: there is no annotation file.
    """
    files = sorted(source.rglob("*.json"))
    if not files:
        raise DatasetError(f"{source} holds no JSON file; expected a folder of LabelMe.")
    for path in files:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read: {error}.") from error
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise DatasetError(f"{path} has no list of `shapes`; it is none of LabelMe.")
        image = path.parent / str(content.get("imagePath") or path.with_suffix(".jpg").name)
        size = image_size(image)
        split = _split(path.relative_to(source), validation)
        if size is None:
            raise DatasetError(
                f"{path}: its image {image} cannot be read. LabelMe can keep images inside JSON "
                "files; save them as files first."
            )
        instances, skipped = read_shapes(content["shapes"])
        yield ForeignImage(split, image, size, instances, skipped)


def _split(name: Path, validation: float) -> str:
    for split in ("train", "val"):
        if split in name.parts[:-1]:
            return split
    digest = hashlib.sha256(name.as_posix().encode()).digest()
    return "val" if int.from_bytes(digest[:4], "big") < validation * 2**32 else "train"


def read_shapes(shapes: list[Any]) -> tuple[list[ForeignInstance], Counter[str]]:
    """Turn the shapes of an image into instances; those of one group and label are one.

    Returns:
        Instances, and why shapes were left out.
    """
    skipped: Counter[str] = Counter()
    polygons: dict[tuple[str, Any], list[list[float]]] = {}
    for number, shape in enumerate(shapes):
        try:
            label, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
            points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
        except (AttributeError, KeyError, TypeError, ValueError):
            skipped["without label or points"] += 1
            continue
        polygon = _polygon(kind, points)
        if polygon is None:
            skipped[f"of shape {kind}"] += 1
            continue
        group = shape.get("group_id")
        key = label, ("alone", number) if group is None else group
        polygons.setdefault(key, []).append(polygon.round(2).ravel().tolist())
    return [ForeignInstance(label, parts) for (label, _), parts in polygons.items()], skipped


def _polygon(kind: str, points: np.ndarray) -> np.ndarray | None:
    """(N, 2) corners of a shape; None for one without an area."""
    if kind == "polygon" and len(points) >= 3:
        return points
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if kind == "circle" and len(points) == 2:  # its centre, and a point of its edge
        radius = np.linalg.norm(points[1] - points[0])
        angles = np.arange(CIRCLE_CORNERS) * (2 * np.pi / CIRCLE_CORNERS)
        circle: np.ndarray = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        return circle
    return None
