"""What can be set about the node: the table that its parameters and their documentation are of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from yolact_ros.config import (
    DEFAULT_MODEL,
    PROPAGATE_AUTO,
    BackendConfig,
    KeyframeConfig,
    PostprocessConfig,
    TrackerConfig,
    check_settings,
    setting,
)
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.output.mask_encodings import MASK_ENCODINGS


@dataclass(frozen=True)
class ModelSettings(BackendConfig):
    """Which model, and what runs it."""

    model: str = setting(
        DEFAULT_MODEL, "Model: name of a shipped model, bundle folder, or checkpoint file"
    )


@dataclass(frozen=True)
class InputSettings:
    """Where the images come from."""

    cameras: tuple[str, ...] = setting(
        ("",),
        "names of the cameras: with [front, rear] the node takes front/image and publishes "
        "~/front/instances, and so on; one empty name: a single camera, on image",
    )
    image_transport: str = setting(
        "raw",
        "raw: sensor_msgs/Image on image; compressed: sensor_msgs/CompressedImage, JPEG or PNG, "
        "on image/compressed, where image is what that name is remapped to",
        choices=("raw", "compressed"),
    )
    queue_policy: str = setting(
        "latest",
        "latest: always the newest image, and older ones are dropped; all: every image in its "
        "order, for bags, with a reliable subscription that takes images as fast as they are done",
        choices=("latest", "all"),
    )
    queue_size: int = setting(
        8, "images of one camera that wait in the node when queue_policy is all", range=(1, 1000)
    )

    def __post_init__(self) -> None:
        check_settings(self)
        for name in self.cameras:
            if name == "" and len(self.cameras) == 1:
                continue
            if not re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name):
                raise ConfigError(
                    f"cameras has the name {name!r}; expected letters, digits and single "
                    "underscores, beginning with a letter, for the name is part of topics."
                )
        if not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise ConfigError(
                f"cameras is {list(self.cameras)}; expected one or more names, each once."
            )


@dataclass(frozen=True)
class WorkSettings:
    """Which images are worked on, and for how long one goes on when that fails."""

    max_frame_age: float = setting(
        0.0,
        "seconds since its stamp, by the node's clock, after which an image is not worked on but "
        "counted as stale; 0: no limit",
        range=(0.0, 3600.0),
    )
    max_megapixels: float = setting(
        64.0,
        "largest compressed image that is decoded, in millions of pixels; a larger one counts as "
        "failed",
        range=(0.01, 1000.0),
    )
    max_failures: int = setting(
        10,
        "images in a row on which the model fails before the node gives it up; 0: no limit",
        range=(0, 1000),
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class DiagnosticSettings:
    """From when on `/diagnostics` warns."""

    target_rate: float = setting(
        0.0, "results a second that each camera should have; 0: none is aimed at", range=(0.0, 1e3)
    )
    rate_tolerance: float = setting(
        0.8, "part of target_rate below which the diagnostics warn", range=(0.0, 1.0)
    )
    image_timeout: float = setting(
        5.0,
        "seconds without an image after which a camera is stale; 0: never",
        range=(0.0, 3600.0),
    )
    latency_warning: float = setting(
        0.0,
        "seconds from an image's stamp to its result, at the 95th percentile, above which the "
        "diagnostics warn; 0: never",
        range=(0.0, 3600.0),
    )
    latency_error: float = setting(
        0.0, "likewise, above which they tell an error; 0: never", range=(0.0, 3600.0)
    )
    memory_warning: float = setting(
        0.0, "MB of memory above which the diagnostics warn; 0: never", range=(0.0, 1e6)
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class FrameSettings(PostprocessConfig):
    """What is found in an image, and how it is told."""

    mask_encoding: str = setting(
        "bits", "form of the masks in ~/instances", choices=tuple(MASK_ENCODINGS)
    )


@dataclass(frozen=True)
class DepthSettings:
    """How depth images are matched with the camera's images and read."""

    depth_wait: float = setting(
        0.05,
        "seconds that 3-D results wait for the depth image after the masks are published; "
        "the next image does not wait, unless queue_policy is all",
        range=(0.0, 10.0),
    )
    depth_tolerance: float = setting(
        0.0,
        "largest difference in seconds between the stamps of image and depth (0 = equal)",
        range=(0.0, 10.0),
    )
    depth_unit: float = setting(
        0.0,
        "metres per unit of the depth image's values; 0: what the encoding says, 0.001 for 16UC1 "
        "and mono16, 1 for 32FC1 (REP 118)",
        range=(0.0, 1.0),
    )
    depth_max: float = setting(
        100.0, "depth in metres above which a value counts as unknown", range=(0.001, 10000.0)
    )
    rectified: bool = setting(
        False,
        "image and depth are rectified: their pinhole is p of the camera info, and not k with "
        "the distortion d",
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Settings:
    """All that can be set, one table a field; parameters have the names of the tables' fields.

    `model` and `inputs` are read by the transition `configure`; the others may change between
    two images.
    """

    model: ModelSettings = ModelSettings()
    inputs: InputSettings = InputSettings()
    work: WorkSettings = WorkSettings()
    frames: FrameSettings = FrameSettings()
    keyframes: KeyframeConfig = KeyframeConfig(propagated_frames=PROPAGATE_AUTO)
    diagnostics: DiagnosticSettings = DiagnosticSettings()
    tracker: TrackerConfig = TrackerConfig()
    depth: DepthSettings = DepthSettings()


READ_BY_CONFIGURE = ("model", "inputs")


@dataclass(frozen=True)
class StartSettings:
    """What the process does by itself."""

    autostart: bool = setting(
        True,
        "configure and activate the node at once; false: wait for a manager, such as "
        "`ros2 lifecycle set`",
    )
