"""Model cameras: intrinsics, poses, the path of a hand-held camera, exposure, blur and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

NEAR, FAR = 0.05, 12.0  # metres; outside, nothing is drawn


@dataclass(frozen=True)
class Camera:
    """Represents a pinhole camera that looks at a point.

    Attributes:
        eye: (x, y, z) of the optical centre in metres, world frame (z up, tabletop at 0).
        target: (x, y, z) of the point in the centre of the picture.
        roll: rotation about the optical axis in radians.
        field_of_view: vertical, in radians.
        size: (height, width) in pixels.
    """

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    roll: float
    field_of_view: float
    size: tuple[int, int]

    @property
    def focal_length(self) -> float:
        """Return the focal length in pixels, the same in x and y."""
        return self.size[0] / 2 / math.tan(self.field_of_view / 2)

    def pose(self) -> np.ndarray:
        """Return the (4, 4) transform from the optical frame (z forward, y down) to the world."""
        eye, target = np.array(self.eye), np.array(self.target)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        pose = np.eye(4)
        pose[:3, 0] = cosine * right + sine * down
        pose[:3, 1] = cosine * down - sine * right
        pose[:3, 2] = forward
        pose[:3, 3] = eye
        return pose

    def view_matrix(self) -> list[float]:
        """Return the OpenGL view matrix, column by column."""
        pose = self.pose()
        pose[:3, 1:3] *= -1  # an OpenGL camera has y up and looks along -z
        return np.linalg.inv(pose).T.ravel().tolist()

    def projection_matrix(self) -> list[float]:
        """Return the OpenGL projection matrix, column by column."""
        scale = 1 / math.tan(self.field_of_view / 2)
        height, width = self.size
        matrix = np.zeros((4, 4))
        matrix[0, 0] = scale * height / width
        matrix[1, 1] = scale
        matrix[2, 2] = -(FAR + NEAR) / (FAR - NEAR)
        matrix[2, 3] = -2 * FAR * NEAR / (FAR - NEAR)
        matrix[3, 2] = -1
        return matrix.T.ravel().tolist()

    def to_mapping(self) -> dict[str, object]:
        """Return intrinsics in pixels and pose for JSON."""
        height, width = self.size
        return {
            "fx": self.focal_length,
            "fy": self.focal_length,
            "cx": width / 2,
            "cy": height / 2,
            "width": width,
            "height": height,
            "camera_to_world": self.pose().tolist(),
        }


def linear_depth(buffer: np.ndarray) -> np.ndarray:
    """Convert an OpenGL depth buffer (H, W) in [0, 1] to distances along the optical axis."""
    return FAR * NEAR / (FAR - (FAR - NEAR) * buffer)


def random_camera(
    random: np.random.Generator, middle: tuple[float, float, float], *, size: tuple[int, int]
) -> Camera:
    """Draw a camera around the table that looks down at a point near `middle` (metres)."""
    azimuth = random.uniform(0, 2 * math.pi)
    elevation = math.radians(random.uniform(18, 75))
    distance = random.uniform(0.5, 1.2)
    aim = np.array(middle) + random.normal(0, 0.06, 3) * [1, 1, 0.3]
    return Camera(
        eye=_around(aim, azimuth=azimuth, elevation=elevation, distance=distance),
        target=tuple(aim.tolist()),
        roll=math.radians(random.normal(0, 6)),
        field_of_view=math.radians(random.uniform(36, 58)),
        size=size,
    )


def orbit(
    random: np.random.Generator,
    middle: tuple[float, float, float],
    *,
    frames: int,
    size: tuple[int, int],
) -> list[Camera]:
    """Draw the path of a hand-held camera around `middle`: a smooth sweep with sway and shake."""
    start = random.uniform(0, 2 * math.pi)
    sweep = math.radians(random.uniform(120, 220)) * random.choice([-1, 1])
    field_of_view = math.radians(random.uniform(42, 52))
    time = np.linspace(0, 1, frames)
    azimuth = start + sweep * (time - np.sin(2 * np.pi * time) / (4 * np.pi))
    azimuth += math.radians(2.0) * shake(random, frames, period=90)
    elevation = math.radians(38) + math.radians(9) * shake(random, frames, period=120)
    distance = 0.85 + 0.10 * shake(random, frames, period=150)
    jitter = np.stack(
        [
            0.03 * shake(random, frames, period=60) + 0.003 * shake(random, frames, period=7)
            for _ in range(3)
        ],
        axis=1,
    )
    roll = math.radians(2.5) * shake(random, frames, period=50)
    cameras = []
    for i in range(frames):
        aim = np.array(middle) + jitter[i]
        eye = _around(aim, azimuth=azimuth[i], elevation=elevation[i], distance=distance[i])
        cameras.append(Camera(eye, tuple(aim.tolist()), float(roll[i]), field_of_view, size))
    return cameras


def shake(random: np.random.Generator, frames: int, *, period: float) -> np.ndarray:
    """Draw smooth random motion (frames,) in about -1..1 that varies every `period` frames."""
    knots = random.normal(0, 0.5, int(frames / period) + 4)
    position = np.arange(frames) / period
    index = position.astype(int)
    fraction = position - index
    ease = fraction * fraction * (3 - 2 * fraction)
    return knots[index] * (1 - ease) + knots[index + 1] * ease


def _around(
    aim: np.ndarray, *, azimuth: float, elevation: float, distance: float
) -> tuple[float, float, float]:
    level = distance * math.cos(elevation)
    return (
        float(aim[0] + level * math.cos(azimuth)),
        float(aim[1] + level * math.sin(azimuth)),
        float(aim[2] + distance * math.sin(elevation)),
    )


@dataclass(frozen=True)
class Lens:
    """Holds the properties of a camera, constant over a clip.

    Attributes:
        gain: (3,) exposure and white balance of the channels B, G, R.
        gamma: exponent of the tone curve.
        blur: standard deviation of the blur in pixels.
        noise: standard deviation of the sensor noise in grey levels.
        vignette: fraction of light that is lost in the corners.
    """

    gain: tuple[float, float, float]
    gamma: float
    blur: float
    noise: float
    vignette: float


def random_lens(random: np.random.Generator) -> Lens:
    """Draw a random camera."""
    exposure = random.uniform(0.8, 1.3)
    return Lens(
        gain=tuple((exposure * (1 + random.normal(0, 0.05, 3))).tolist()),
        gamma=random.uniform(0.75, 1.2),
        blur=random.uniform(0.3, 1.0) if random.random() < 0.7 else 0.0,
        noise=random.uniform(0.5, 5.0),
        vignette=random.uniform(0.0, 0.3),
    )


def video_lens(lens: Lens) -> Lens:
    """Return the camera with a video encoder, which keeps neither noise nor fine detail."""
    return replace(lens, noise=min(lens.noise, 1.0), blur=max(lens.blur, 0.8))


def photograph(image: np.ndarray, lens: Lens, random: np.random.Generator) -> np.ndarray:
    """Make a clean rendering look like a photograph.

    Args:
        image: (H, W, 3) uint8 BGR.
        lens: camera.
        random: random generator for the noise.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    height, width = image.shape[:2]
    levels = (np.arange(256) / 255) ** lens.gamma * 255
    table = np.clip(levels[:, None] * np.array(lens.gain), 0, 255).astype(np.float32)
    picture = np.stack([table[image[..., c], c] for c in range(3)], axis=-1)
    if lens.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), lens.blur)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    picture *= (1 - lens.vignette * (rows**2 + columns**2) / 2)[..., None]
    picture += random.standard_normal((height, width, 1), np.float32) * lens.noise
    return np.clip(picture, 0, 255).astype(np.uint8)
