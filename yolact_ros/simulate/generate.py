"""Write data sets and clips of simulated tabletops."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle
from tqdm import tqdm

from yolact_ros.classes import TABLETOP
from yolact_ros.errors import DatasetError
from yolact_ros.simulate.camera import orbit, photograph, random_camera, random_lens, video_lens
from yolact_ros.simulate.tabletop import Tabletop, View

JPEG_QUALITY = 92
VIEWS_PER_SCENE = 4  # loading and dropping objects takes as long as two or three pictures


@dataclass(frozen=True)
class SimulatedImage:
    """Holds one image of a data set.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        annotations: see `annotations.annotate`.
        camera: see `Camera.to_mapping`.
        depth: (H, W) float32 metres along the optical axis.
    """

    image: np.ndarray
    annotations: list[dict[str, Any]]
    camera: dict[str, Any]
    depth: np.ndarray


def scene_frames(seed: int, scene: int, *, size: tuple[int, int]) -> list[SimulatedImage]:
    """Render the images of one scene: `VIEWS_PER_SCENE` cameras, lights and looks.

    Args:
        seed: seed of the data set.
        scene: index of the scene; seed and index determine all pixels.
        size: (height, width).
    """
    random = np.random.default_rng([seed, scene])
    with Tabletop(
        random, objects=int(random.integers(3, 13)), clutter=int(random.integers(0, 7))
    ) as world:
        frames = []
        for _ in range(VIEWS_PER_SCENE):
            look = world.restyle(random)
            camera = random_camera(random, world.middle, size=size)
            view = world.render(camera, look)
            image = photograph(view.image, random_lens(random), random)
            frames.append(_frame(world, view, image, camera))
        return frames


def clip_frames(seed: int, *, frames: int, size: tuple[int, int]) -> Iterator[SimulatedImage]:
    """Render a clip: one scene, one light, one camera that moves around the table."""
    random = np.random.default_rng([seed, 0])
    with Tabletop(random, objects=11, clutter=2) as world:
        look, lens = world.restyle(random), video_lens(random_lens(random))
        for camera in orbit(random, world.middle, frames=frames, size=size):
            view = world.render(camera, look)
            yield _frame(world, view, photograph(view.image, lens, random), camera)


def _frame(world: Tabletop, view: View, image: np.ndarray, camera: Any) -> SimulatedImage:
    track_ids = {body: number + 1 for number, body in enumerate(world.objects)}
    annotations = annotate(
        view.bodies, world.objects, silhouettes=world.silhouettes(camera), track_ids=track_ids
    )
    return SimulatedImage(image, annotations, camera.to_mapping(), view.depth)


def write_images(
    folder: Path,
    *,
    seed: int,
    frames: int,
    size: tuple[int, int] = (480, 640),
    processes: int = 1,
    depth: bool = False,
) -> None:
    """Write `images/`, `instances.json` and `cameras.json`, and `depth/` on request.

    The result does not depend on the number of processes.

    Raises:
        DatasetError: the folder is not empty, or a file cannot be written.
    """
    writer = _Writer(folder, depth=depth)
    scenes = -(-frames // VIEWS_PER_SCENE)
    render = partial(scene_frames, seed, size=size)
    with tqdm(total=frames, desc="simulate", unit="image") as bar:
        for made in _run(render, scenes, processes):
            for frame in made[: frames - writer.count]:
                writer.add(frame)
                bar.update()
    writer.finish()


def write_clip(
    folder: Path, *, seed: int, frames: int, size: tuple[int, int] = (480, 640), fps: float = 20.0
) -> None:
    """Write `clip.mp4` and the files of `write_images` with depth for its frames.

    Raises:
        DatasetError: see `write_images`; or OpenCV cannot write video.
    """
    writer = _Writer(folder, depth=True, clip=True)
    path = folder / "clip.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size[::-1])
    if not video.isOpened():
        raise DatasetError(f"OpenCV cannot write {path}: it was built without a video encoder.")
    made = clip_frames(seed, frames=frames, size=size)
    for frame in tqdm(made, total=frames, desc="simulate", unit="frame"):
        writer.add(frame)
        video.write(frame.image)
    video.release()
    writer.finish()


class _Writer:
    """Writes images and collects their annotations."""

    def __init__(self, folder: Path, *, depth: bool, clip: bool = False) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise DatasetError(f"{folder} is not empty; choose a new folder, or remove it first.")
        self.folder = folder
        self.depth = depth
        self.clip = clip
        (folder / "images").mkdir(parents=True, exist_ok=True)
        if depth:
            (folder / "depth").mkdir()
        self.images: list[dict[str, Any]] = []
        self.annotations: list[list[dict[str, Any]]] = []
        self.cameras: list[dict[str, Any]] = []

    @property
    def count(self) -> int:
        return len(self.images)

    def add(self, frame: SimulatedImage) -> None:
        name = f"{self.count:06d}"
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        self._write(self.folder / "images" / f"{name}.jpg", frame.image, quality)
        if self.depth:
            millimetres = np.clip(frame.depth * 1000, 0, 65535).astype(np.uint16)
            self._write(self.folder / "depth" / f"{name}.png", millimetres, [])
        height, width = frame.image.shape[:2]
        entry = {
            "id": self.count + 1,
            "file_name": f"{name}.jpg",
            "height": height,
            "width": width,
        }
        position = {"video_id": 1, "frame": self.count} if self.clip else {}
        self.images.append({**entry, **position})
        self.annotations.append(frame.annotations)
        self.cameras.append({"file_name": f"{name}.jpg", **frame.camera})

    def finish(self) -> None:
        document = coco_document(self.images, self.annotations)
        (self.folder / "instances.json").write_text(json.dumps(document))
        (self.folder / "cameras.json").write_text(json.dumps(self.cameras))

    @staticmethod
    def _write(path: Path, image: np.ndarray, options: list[int]) -> None:
        if not cv2.imwrite(str(path), image, options):
            raise DatasetError(f"{path} cannot be written; check free disk space.")


def _run(render: Callable[[int], Any], scenes: int, processes: int) -> Iterator[Any]:
    if processes <= 1:
        yield from map(render, range(scenes))
        return
    with multiprocessing.get_context("spawn").Pool(processes, _start_worker) as pool:
        yield from pool.imap(render, range(scenes))


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the other processes use the other cores


# Objects that are less visible are not annotated, because nobody could recognise them.
MIN_AREA_FRACTION = 64 / (640 * 480)  # of the image
MIN_VISIBLE_FRACTION = 0.1  # of the silhouette of the object


def annotate(
    bodies: np.ndarray,
    objects: Mapping[int, int],
    *,
    silhouettes: Mapping[int, int],
    track_ids: Mapping[int, int],
) -> list[dict[str, Any]]:
    """Annotate every object that is sufficiently visible.

    Args:
        bodies: (H, W) int32, body at each pixel.
        objects: class id by body.
        silhouettes: number of pixels that each body would fill without occlusion, by body.
        track_ids: track id by body, constant over a clip.

    Returns:
        COCO annotations without `id` and `image_id`; the segmentation is compressed RLE.
    """
    annotations = []
    for body, class_id in objects.items():
        mask = bodies == body
        area = int(mask.sum())
        if area < MIN_AREA_FRACTION * mask.size or area < MIN_VISIBLE_FRACTION * silhouettes[body]:
            continue
        encoded = rle.encode(np.asfortranarray(mask, np.uint8))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "category_id": class_id + 1,
                "segmentation": {
                    "size": [int(side) for side in encoded["size"]],
                    "counts": encoded["counts"].decode("ascii"),
                },
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                "area": area,
                "iscrowd": 0,
                "track_id": track_ids[body],
            }
        )
    return annotations


def coco_document(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Assemble the content of a COCO file.

    Args:
        images: COCO image entries.
        annotations: results of `annotate` for each image.
    """
    numbered: list[dict[str, Any]] = []
    for image, found in zip(images, annotations, strict=True):
        for annotation in found:
            numbered.append({"id": len(numbered) + 1, "image_id": image["id"], **annotation})
    return {
        "info": {"description": "Simulated tabletops with true instance masks"},
        "images": list(images),
        "annotations": numbered,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(TABLETOP)],
    }
