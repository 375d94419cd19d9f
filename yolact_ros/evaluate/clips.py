"""Annotated clips: folders of `yolact simulate`, and videos in YouTube-VIS form."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError
from yolact_ros.evaluate.true_motion import Motion, motion_from_depth, motion_from_homographies
from yolact_ros.runtime.images.decoding import read_samples


@dataclass(frozen=True, eq=False)
class Clip:
    """Consecutive frames of one camera.

    Attributes:
        name: for messages.
        dataset: what holds the frames.
        indices: their positions in the data set, in order of time.
        motion: of two frames, the later one first, gives the true motion; None if nobody knows it.
    """

    name: str
    dataset: CocoDataset
    indices: tuple[int, ...]
    motion: Callable[[Sample, Sample], Motion] | None

    def __len__(self) -> int:
        return len(self.indices)


def read_clips(
    paths: Sequence[Path], *, images: Path | None, classes: tuple[str, ...]
) -> list[Clip]:
    """Read the annotations of clips, and look for their images.

    Args:
        paths: folders with `instances.json` and `images/`, or annotation files. A file whose
            images belong to no video is one clip, in the order of image ids. Where a folder has
            `depth/` and `cameras.json` (`yolact simulate clip`) or `homographies.json`
            (`stills`), the true motion is known.
        images: the image folder of annotation files; for folders not needed.
        classes: of the model.

    Raises:
        DatasetError: something is missing, or there are no frames.
    """
    clips = []
    for path in paths:
        if path.is_dir():
            annotations, folder = path / "instances.json", path / "images"
            motion = _motion_of(path)
        else:
            annotations, folder, motion = path, images or path.parent, None
        dataset = CocoDataset(annotations, folder, classes=classes)
        dataset.check_files()
        videos = dataset.videos() or [list(range(len(dataset)))]
        clips += [
            Clip(f"{path} video {n}" if len(videos) > 1 else str(path), dataset, tuple(v), motion)
            for n, v in enumerate(videos, start=1)
            if v
        ]
    if not clips:
        raise DatasetError(f"{', '.join(map(str, paths))}: no frames to evaluate on.")
    return clips


def _motion_of(folder: Path) -> Callable[[Sample, Sample], Motion] | None:
    """The true motion of a clip's folder, if it can be known."""
    if (folder / "depth").is_dir() and (folder / "cameras.json").is_file():
        return _DepthMotion(folder)
    if (folder / "homographies.json").is_file():
        return _FlatMotion(folder / "homographies.json")
    return None


class _FlatMotion:
    """True motion of a folder of `yolact simulate stills`."""

    def __init__(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self._homographies = {
                str(name): np.asarray(rows, np.float64).reshape(3, 3)
                for name, rows in content.items()
            }
        except (OSError, ValueError, AttributeError) as error:
            raise DatasetError(
                f"{path} cannot be used: {error}; expected a 3x3 matrix for each file name."
            ) from error
        self._path = path

    def __call__(self, later: Sample, earlier: Sample) -> Motion:
        return motion_from_homographies(
            (later.image.shape[0], later.image.shape[1]),
            self._of(later.file_name),
            earlier=self._of(earlier.file_name),
        )

    def _of(self, name: str) -> np.ndarray:
        if name not in self._homographies:
            raise DatasetError(f"{self._path} has no homography of {name}.")
        return self._homographies[name]


class _DepthMotion:
    """True motion of a folder with depth images and camera poses."""

    def __init__(self, folder: Path) -> None:
        path = folder / "cameras.json"
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            self._cameras: dict[str, Any] = {entry["file_name"]: entry for entry in entries}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{path} cannot be used: {error}; expected a list of cameras with file_name, as "
                "yolact simulate writes it."
            ) from error
        self._folder = folder / "depth"
        self._depth = functools.lru_cache(maxsize=2)(self._read_depth)

    def __call__(self, later: Sample, earlier: Sample) -> Motion:
        return motion_from_depth(
            self._depth(later.file_name),
            self._camera(later.file_name),
            earlier_depth=self._depth(earlier.file_name),
            earlier_camera=self._camera(earlier.file_name),
        )

    def _camera(self, name: str) -> Any:
        if name not in self._cameras:
            raise DatasetError(f"{self._folder.parent / 'cameras.json'} has no camera of {name}.")
        return self._cameras[name]

    def _read_depth(self, name: str) -> np.ndarray:
        path = (self._folder / name).with_suffix(".png")
        millimetres = read_samples(path)
        if millimetres.dtype != np.uint16 or millimetres.ndim != 2:
            raise DatasetError(f"{path} is no 16-bit depth image in millimetres.")
        depth: np.ndarray = millimetres.astype(np.float32) / 1000
        return depth
