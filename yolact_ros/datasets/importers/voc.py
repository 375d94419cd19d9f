"""Read Pascal VOC segmentation data sets: a PNG of classes and a PNG of objects per image.

Pascal's PNGs have a palette whose colours are the bits of the number: bits 0, 1, 2 are the highest
bits of red, green and blue, and so on. 0 is the background, 255 the border of objects. CVAT's
"Segmentation mask" has its own colours, listed in `labelmap.txt`, and the list `default.txt`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from yolact_ros.datasets.files import (
    IMAGE_SUFFIXES,
    PictureFinder,
    clean_name,
    decode_picture,
    is_regular,
    read_picture,
    read_text,
)
from yolact_ros.datasets.findings import ERROR, WARNING, Findings
from yolact_ros.datasets.importers.foreign import ForeignImage, ForeignInstance, encode_mask
from yolact_ros.errors import DatasetError
from yolact_ros.files import shown

LISTS = Path("ImageSets") / "Segmentation"
LABELMAP = "labelmap.txt"
RIM = 255
RIM_CODE = 224 << 16 | 224 << 8 | 192  # of red, green, blue
GREY = 0  # colour type of a PNG


def read_voc(
    source: Path, classes: Sequence[str], findings: Findings
) -> tuple[tuple[str, ...], Iterator[ForeignImage]]:
    """Open a data set.

    Args:
        source: the folder with `JPEGImages`, `SegmentationClass`, `SegmentationObject` and
            `ImageSets/Segmentation`.
        classes: class names from number 1 on; `labelmap.txt` takes precedence.
        findings: receives the findings.

    Returns:
        The class names, and the images of all lists.

    Raises:
        DatasetError: a list is missing or cannot be read.
    """
    lists = {path.stem: path for path in sorted((source / LISTS).glob("*.txt"))}
    if {"train", "val"} & lists.keys():
        lists.pop("trainval", None)
    if not lists:
        raise DatasetError(f"{source / LISTS} has no list of images, e.g. train.txt.")
    colours: dict[int, str] | None = None
    names = tuple(classes)
    if is_regular(source / LABELMAP):
        colours = read_labelmap(source / LABELMAP)
        names = tuple(dict.fromkeys(colours.values()))
    return names, _images(source, lists, names, colours, findings)


def read_labelmap(path: Path) -> dict[int, str]:
    """Read class names by colour (24 bits: red, green, blue), without the background.

    Raises:
        DatasetError: a line is not `name:red,green,blue:parts:actions`.
    """
    colours: dict[int, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(word) for word in rest.split(":")[0].split(","))
            if not all(0 <= value <= 255 for value in (red, green, blue)):
                raise ValueError("not a colour")
        except ValueError as error:
            raise DatasetError(
                f"{path}, line {number}: expected name:red,green,blue:parts:actions."
            ) from error
        code = red << 16 | green << 8 | blue
        if code and clean_name(name):
            colours[code] = clean_name(name)
    return colours


def _images(
    source: Path,
    lists: dict[str, Path],
    names: tuple[str, ...],
    colours: dict[int, str] | None,
    findings: Findings,
) -> Iterator[ForeignImage]:
    find = PictureFinder(source / "JPEGImages", source)
    for split, path in lists.items():
        split = split if split in ("train", "val", "test") else "train"
        for line in read_text(path).splitlines():
            if not line.strip():
                continue
            image, name = _find_image(line.strip(), find, source)
            if image is None:
                findings.add(
                    ERROR, "labels without an image", f"{shown(path)}: {shown(line)[:80]}"
                )
                continue
            try:
                pngs = [
                    read_colours(source / folder / f"{name}.png")
                    for folder in ("SegmentationClass", "SegmentationObject")
                ]
            except DatasetError as error:
                findings.add(ERROR, "mask that cannot be read", shown(error))
                continue
            size = (pngs[0].shape[0], pngs[0].shape[1])
            if pngs[1].shape[:2] != size:
                findings.add(ERROR, "masks of classes and objects of different sizes", shown(name))
                continue
            objects = find_objects(pngs[0], pngs[1], names, colours, findings, name=shown(name))
            yield ForeignImage(split, image, size, objects)


def _find_image(line: str, find: PictureFinder, source: Path) -> tuple[Path | None, str]:
    """Return the image that a line of a list names, and the name without a suffix."""
    for name in dict.fromkeys((line, line.split()[0])):
        for suffix in (".jpg", ".png", *IMAGE_SUFFIXES):
            if is_regular(source / "JPEGImages" / f"{name}{suffix}"):
                return source / "JPEGImages" / f"{name}{suffix}", name
        stem = str(Path(name).with_suffix("")) if name.lower().endswith(IMAGE_SUFFIXES) else name
        found = next(filter(None, (find(f"{stem}{suffix}") for suffix in IMAGE_SUFFIXES)), None)
        if found is not None:
            return found, stem
    return None, line


def palette() -> np.ndarray:
    """Return Pascal's palette, (256, 3) uint8 B, G, R."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):  # of the number
        channel, place = bit % 3, bit // 3  # red, green, blue; from the highest bit down
        colours[:, 2 - channel] |= (numbers >> bit & 1) << (7 - place)
    return colours.astype(np.uint8)


def read_colours(path: Path) -> np.ndarray:
    """Return (H, W, 3) uint8 B, G, R of a colour or palette PNG, or (H, W) uint8 of a grey one.

    Raises:
        DatasetError: it is missing, cannot be decoded, is not a PNG, or does not have 8 bits per
            sample, which OpenCV would stretch, so that class 1 of 4 bits reads as 17.
    """
    data = read_picture(path)
    if not data.startswith(b"\x89PNG") or len(data) < 26:
        raise DatasetError(f"{shown(path)} is not a PNG.")
    depth, colour_type = struct.unpack("BB", data[24:26])
    if depth > 8 or (colour_type == GREY and depth != 8):
        raise DatasetError(f"{shown(path)} has {depth} bits per sample; expected 8, or a palette.")
    image = None
    if decode_picture(data, grey=True) is not None:  # within the limits, and complete
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DatasetError(f"{shown(path)} cannot be decoded.")
    if image.ndim == 3 and image.shape[2] == 2:  # grey and alpha
        return np.ascontiguousarray(image[..., 0])
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., :3])


def read_numbers(image: np.ndarray) -> np.ndarray:
    """Return the (H, W) uint8 numbers of Pascal's colours; a grey image is returned unchanged.

    Raises:
        DatasetError: a colour is not one of Pascal's.
    """
    if image.ndim == 2:
        return image
    codes = image.astype(np.int64) @ (1, 256, 65536)
    known = palette().astype(np.int64) @ (1, 256, 65536)
    order = known.argsort()
    indices = np.searchsorted(known[order], codes).clip(0, 255)
    numbers: np.ndarray = order[indices].astype(np.uint8)
    if (known[numbers] != codes).any():
        raise DatasetError("it has colours that are not in Pascal's palette, and no labelmap.txt")
    return numbers


def find_objects(
    class_image: np.ndarray,
    object_image: np.ndarray,
    classes: Sequence[str],
    colours: dict[int, str] | None,
    findings: Findings,
    *,
    name: str,
) -> list[ForeignInstance]:
    """Create an instance for each object; its class is that of most of its pixels.

    Args:
        class_image: (H, W, 3) or (H, W) uint8, see `read_colours`.
        object_image: as `class_image`, but for the objects; each colour is one object.
        classes: class names from number 1 on.
        colours: names by colour, see `read_labelmap`; they replace Pascal's.
        findings: receives the objects that cannot be used.
        name: name of the image, for the findings.
    """
    try:
        if colours is None or class_image.ndim == 2:
            named = {i: n for i, n in enumerate(classes, start=1)}
            class_codes = read_numbers(class_image).astype(np.int64)
            rim = RIM
        else:
            named, class_codes, rim = colours, _codes(class_image), RIM_CODE
    except DatasetError as error:
        findings.add(ERROR, "mask that cannot be read", f"{name}: {error}")
        return []
    try:  # in the order of Pascal's numbers, if there are any
        object_codes, object_rim = read_numbers(object_image).astype(np.int64), RIM
    except DatasetError:
        object_codes, object_rim = _codes(object_image), RIM_CODE
    instances = []
    for code in np.unique(object_codes).tolist():
        if code in (0, object_rim):
            continue
        mask = object_codes == code
        where = f"{name}, object {code}"
        values, counts = np.unique(class_codes[mask], return_counts=True)
        counts[np.isin(values, (0, rim))] = 0
        class_name = named.get(int(values[counts.argmax()])) if counts.any() else None
        if class_name is None:
            findings.add(ERROR, "annotation of an unknown class", where)
            continue
        instances.append(ForeignInstance(class_name, encode_mask(mask), where=where))
    if (class_codes[object_codes == 0] * (class_codes[object_codes == 0] != rim)).any():
        findings.add(WARNING, "image with pixels of a class but of no object", name)
    return instances


def _codes(image: np.ndarray) -> np.ndarray:
    """Return (H, W) int64: the grey value, or red, green and blue as 24 bits."""
    if image.ndim == 2:
        return image.astype(np.int64)
    codes: np.ndarray = image.astype(np.int64) @ (1, 256, 65536)
    return codes
