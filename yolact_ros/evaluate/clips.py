"""Read annotated clips: folders of `yolact simulate clip`, and YouTube-VIS videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Clip:
    """Holds consecutive frames of one camera.

    Attributes:
        name: name of the clip in messages.
        dataset: the data set that holds the frames.
        indices: positions of the frames in the data set, in temporal order.
    """

    name: str
    dataset: CocoDataset
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)


def read_clips(
    paths: Sequence[Path], *, images: Path | None, classes: tuple[str, ...]
) -> list[Clip]:
    """Read the annotations of clips and check that their images exist.

    Args:
        paths: folders with `instances.json` and `images/`, or annotation files. A file without
            videos is one clip, in the order of image ids.
        images: image folder of annotation files; not needed for folders.
        classes: classes of the model.

    Raises:
        DatasetError: a file is missing, or there are no frames.
    """
    clips = []
    for path in paths:
        if path.is_dir():
            annotations, folder = path / "instances.json", path / "images"
        else:
            annotations, folder = path, images or path.parent
        dataset = CocoDataset(annotations, folder, classes=classes)
        dataset.check_files()
        videos = dataset.videos() or [list(range(len(dataset)))]
        clips += [
            Clip(f"{path} video {n}" if len(videos) > 1 else str(path), dataset, tuple(v))
            for n, v in enumerate(videos, start=1)
            if v
        ]
    if not clips:
        raise DatasetError(f"{', '.join(map(str, paths))}: no frames to evaluate on.")
    return clips
