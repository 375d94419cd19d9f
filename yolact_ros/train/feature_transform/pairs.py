"""Provide pairs of a keyframe and a later frame, from which a network learns to warp features.

Of a still picture, which is then the later frame, the keyframe is rendered as a camera would have
seen it a moment earlier: the whole picture moves by a projective map, and some instances by their
own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from torch.utils.data import Dataset

from yolact_ros.config import STRIDES, Checked, setting
from yolact_ros.datasets.coco import CocoDataset, Sample
from yolact_ros.errors import DatasetError
from yolact_ros.train.augment import apply_changes, draw_changes

if TYPE_CHECKING:
    from yolact_ros.train.config import TrainConfig

# Streams of the random generators of a training.
ORDER, CHANGES, REPETITION, CHOICE, MOTION = 0, 1, 2, 3, 4

# Width of the border of an instance whose mixed pixels move with it.
EDGE_PIXELS = 2
INPAINT_RADIUS = 3  # pixels around a hole that OpenCV's inpainting uses


@dataclass(frozen=True)
class MotionConfig(Checked):
    """Configures the motion from keyframe to frame; each value is drawn uniformly.

    Attributes:
        shift: Maximum shift of the camera, relative to the image sides.
        rotation: Maximum roll of the camera in degrees.
        zoom: Maximum deviation of the camera's zoom from 1.
        tilt: Maximum shift of each corner, relative to the image sides.
        instance_probability: Probability that an instance moves independently.
        instance_shift: Maximum shift of such an instance, relative to the image sides.
    """

    shift: float = setting(0.06, range=(0.0, 1.0))
    rotation: float = setting(6.0, range=(0.0, 90.0))
    zoom: float = setting(0.08, range=(0.0, 0.9))
    tilt: float = setting(0.02, range=(0.0, 0.4))
    instance_probability: float = setting(0.3, range=(0.0, 1.0))
    instance_shift: float = setting(0.06, range=(0.0, 1.0))


@dataclass(frozen=True)
class PairConfig(Checked):
    """Configures the pairs that train the partial feature transform, and its losses.

    Attributes:
        motion: Motion of the pairs that are rendered from still images.
        offsets: Minimum and maximum number of frames between keyframe and frame, in annotated
            videos.
        flow_weight: Weight of the flow loss, where the true flow is known.
        matching_weight: Weight of the cosine loss between warped features and those of the full
            network.
    """

    motion: MotionConfig = MotionConfig()
    offsets: tuple[int, int] = setting((2, 5))
    flow_weight: float = setting(1.0, range=(0.0, 1e3))
    matching_weight: float = setting(1.0, range=(0.0, 1e3))


@dataclass(frozen=True)
class Pair:
    """Holds a frame and the keyframe before it, both at the network's input size.

    Attributes:
        frame: the annotated frame.
        keyframe: (H, W, 3) uint8 BGR.
        flow: (2, h4, w4) float32 x and y in pixels, at the cells of x4, from the frame to the
            keyframe; NaN where unknown.
    """

    frame: Sample
    keyframe: np.ndarray
    flow: np.ndarray


def pair_of_still(frame: Sample, config: PairConfig, *, random: np.random.Generator) -> Pair:
    """Render a keyframe for a frame of the network's input size."""
    still = move_still(frame, config.motion, random=random)
    flow = np.where(still.known, still.flow, np.float32(np.nan))
    # Cell i of a map is centred on pixel stride * i.
    return Pair(frame, still.keyframe, flow[:, :: STRIDES[1], :: STRIDES[1]].copy())


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Draw the order of `count` samples in an epoch."""
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)


class VideoPairs(Dataset):
    """Yields pairs from annotated videos with the same augmentation; their true motion is unknown.

    The sequence is endless, and pair k depends only on the seed and k.

    Attributes:
        indices: positions in the data set of the frames with instances that have an earlier frame
            in their video.
    """

    def __init__(self, dataset: CocoDataset, config: TrainConfig) -> None:
        """Find the pairs.

        Raises:
            DatasetError: no frame with an instance has an earlier one.
            ValueError: the offsets are not a range of positive numbers.
        """
        assert config.pairs is not None
        self.offsets = config.pairs.offsets
        if not 1 <= self.offsets[0] <= self.offsets[1]:
            raise ValueError(f"Offsets are {self.offsets}; expected 1 <= minimum <= maximum.")
        self.dataset = dataset
        self.config = config
        self._earlier = {
            index: frames[:number]
            for frames in dataset.videos()
            for number, index in enumerate(frames)
            if number and dataset.has_instances(index)
        }
        self.indices = sorted(self._earlier)
        if not self.indices:
            raise DatasetError(
                f"{dataset.annotations_path}: no annotated frame has an earlier one; pairs "
                "require annotations of videos (YouTube-VIS)."
            )

    def choose(self, index: int, random: np.random.Generator) -> int:
        """Draw a keyframe for the frame at `index`; near the start of a video, there are fewer."""
        earlier = self._earlier[index]
        most = min(self.offsets[1], len(earlier))
        return earlier[-int(random.integers(min(self.offsets[0], most), most + 1))]

    def __getitem__(self, position: int) -> Pair:
        epoch, offset = divmod(position, len(self.indices))
        config, model = self.config, self.config.model
        index = self.indices[int(epoch_order(config.seed, epoch, len(self.indices))[offset])]
        choice = np.random.default_rng([config.seed, CHOICE, position])
        keyframe, frame = self.dataset.load(self.choose(index, choice)), self.dataset.load(index)
        random = np.random.default_rng([config.seed, CHANGES, position])
        size, augmentation = model.input_size, config.augmentation
        changes = draw_changes(
            frame, size, config=augmentation, random=random, resize=model.resize
        )
        frame, keyframe = (
            apply_changes(sample, changes, size, config=augmentation)
            for sample in (frame, keyframe)
        )
        unknown = np.full((2, *model.feature_sizes[1]), np.nan, np.float32)
        return Pair(frame, keyframe.image, unknown)


@dataclass(frozen=True)
class MovedStill:
    """Holds the keyframe rendered from an image.

    Attributes:
        keyframe: (H, W, 3) uint8 BGR.
        flow: (2, H, W) float32 x and y in pixels, from each pixel of the picture to its position
            in the keyframe.
        known: (H, W) bool, whether the keyframe shows that pixel.
    """

    keyframe: np.ndarray
    flow: np.ndarray
    known: np.ndarray


def move_still(sample: Sample, config: MotionConfig, *, random: np.random.Generator) -> MovedStill:
    """Draw a random motion and render the keyframe before it.

    Args:
        sample: current frame; not changed.
        config: maximum motions.
        random: random generator.
    """
    height, width = sample.image.shape[:2]
    camera = random_homography((height, width), config, random=random)
    maps, owners = [camera], np.zeros((height, width), np.uint8)
    for mask in sample.masks[~sample.crowd][:254]:
        if random.random() < config.instance_probability:
            x, y = random.uniform(-config.instance_shift, config.instance_shift, 2)
            maps.append(translation(x * width, y * height) @ camera)
            owners[mask > 0] = len(maps) - 1
    keyframe, keyframe_owners = _draw_keyframe(sample.image, owners, maps)
    targets = np.zeros((2, height, width), np.float32)
    for number, homography in enumerate(maps):
        place = owners == number
        targets[:, place] = move_points(homography, np.argwhere(place)[:, ::-1]).T
    columns, rows = np.rint(targets).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    seen = keyframe_owners[np.where(inside, rows, 0), np.where(inside, columns, 0)]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)))
    return MovedStill(keyframe, (targets - grid).astype(np.float32), inside & (seen == owners))


def random_homography(
    size: tuple[int, int], config: MotionConfig, *, random: np.random.Generator
) -> np.ndarray:
    """Draw a (3, 3) float64 homography from pixels x y of the frame to those of the keyframe."""
    height, width = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    tilted = corners + random.uniform(-config.tilt, config.tilt, (4, 2)) * (width, height)
    tilt = cv2.getPerspectiveTransform(corners, tilted.astype(np.float32))
    angle = random.uniform(-config.rotation, config.rotation)
    scale = random.uniform(1 - config.zoom, 1 + config.zoom)
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    x, y = random.uniform(-config.shift, config.shift, 2)
    homography: np.ndarray = translation(x * width, y * height) @ turn @ tilt
    return homography


def translation(x: float, y: float) -> np.ndarray:
    """Return the (3, 3) homography of a translation."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def move_points(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map (N, 2) x y by a (3, 3) homography, as float64."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography.T
    moved: np.ndarray = homogeneous[:, :2] / homogeneous[:, 2:]
    return moved


def _draw_keyframe(
    image: np.ndarray, owners: np.ndarray, maps: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Render the background, mirrored beyond the image, then the instances that moved.

    Args:
        image: (H, W, 3) uint8, the current frame.
        owners: (H, W) uint8, index of the map of each pixel; 0 is the background.
        maps: (3, 3) homographies from the frame to the keyframe.

    Returns:
        The keyframe, and its own (H, W) uint8 owners.
    """
    size = (image.shape[1], image.shape[0])
    background = image
    if len(maps) > 1:
        kernel = np.ones((2 * EDGE_PIXELS + 1,) * 2, np.uint8)
        hole = cv2.dilate((owners > 0).astype(np.uint8), kernel)
        background = cv2.inpaint(image, hole, INPAINT_RADIUS, cv2.INPAINT_TELEA)
    keyframe = cv2.warpPerspective(
        background, maps[0], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    keyframe_owners = np.zeros_like(owners)
    for number, homography in enumerate(maps[1:], start=1):
        mask = (owners == number).astype(np.float32)
        cover = cv2.warpPerspective(mask, homography, size, flags=cv2.INTER_LINEAR)
        moved = cv2.warpPerspective(image, homography, size, flags=cv2.INTER_LINEAR)
        mixed = keyframe + cover[..., None] * (moved.astype(np.float32) - keyframe)
        keyframe = np.rint(mixed).astype(np.uint8)
        keyframe_owners[cover > 0.5] = number
    return keyframe, keyframe_owners
