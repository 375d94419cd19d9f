"""Define the node's settings, the single source of its ROS parameters, and describe them."""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yolact_ros.config import (
    DEFAULT_MODEL,
    PROPAGATE_AUTO,
    BackendConfig,
    Checked,
    KeyframeConfig,
    PostprocessConfig,
    TrackerConfig,
    describe,
    setting,
)
from yolact_ros.errors import ConfigError
from yolact_ros.runtime.output.instance_array import MASK_ENCODINGS

READ_BY_CONFIGURE = ("model", "inputs")


@dataclass(frozen=True)
class ModelSettings(BackendConfig):
    """Selects the model and its backend.

    Attributes:
        model: Name of a shipped model, bundle folder or checkpoint file.
    """

    model: str = setting(DEFAULT_MODEL)


@dataclass(frozen=True)
class InputSettings(Checked):
    """Configures the cameras and their images.

    Attributes:
        cameras: Names of the cameras. With [front, rear], the node subscribes to front/image and
            rear/image and publishes ~/front/instances and ~/rear/instances; a single empty name
            means one camera, on image.
        image_transport: How images arrive: raw (sensor_msgs/Image on image) or compressed
            (sensor_msgs/CompressedImage, JPEG or PNG, on image/compressed); /compressed is
            appended after image is remapped.
        depth_transport: How depth images arrive: raw (sensor_msgs/Image on depth/image) or
            compressedDepth (sensor_msgs/CompressedImage, a PNG of 16 or 32 bits, on
            depth/image/compressedDepth); /compressedDepth is appended after depth/image is
            remapped.
        queue_policy: Which images are processed: latest (the newest; older ones are dropped) or
            all (every image in order, for bags; uses a reliable subscription).
        queue_size: Maximum number of images per camera that may wait if queue_policy is all.
    """

    cameras: tuple[str, ...] = setting(("",))
    image_transport: str = setting("raw", choices=("raw", "compressed"))
    depth_transport: str = setting("raw", choices=("raw", "compressedDepth"))
    queue_policy: str = setting("latest", choices=("latest", "all"))
    queue_size: int = setting(8, range=(1, 1000))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.cameras:
            if name == "" and len(self.cameras) == 1:
                continue
            if not re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name):
                raise ConfigError(
                    f"cameras has the name {name!r}; expected letters, digits and single "
                    "underscores, beginning with a letter, because it becomes part of topic names."
                )
        if not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise ConfigError(
                f"cameras is {list(self.cameras)}; expected one or more unique names."
            )


@dataclass(frozen=True)
class LimitSettings(Checked):
    """Limits the images and the failures that are accepted.

    Attributes:
        max_frame_age: Maximum age of an image in seconds, from its stamp to the node's clock;
            older images are counted as stale and not processed (0 = no limit).
        max_megapixels: Largest compressed image to decode, in millions of pixels; larger ones are
            counted as failed.
        max_failures: Number of consecutive images on which the model may fail before the node
            reloads it (0 = no limit).
    """

    max_frame_age: float = setting(0.0, range=(0.0, 3600.0))
    max_megapixels: float = setting(64.0, range=(0.01, 1000.0))
    max_failures: int = setting(10, range=(0, 1000))


@dataclass(frozen=True)
class DiagnosticSettings(Checked):
    """Sets the thresholds for warnings on /diagnostics.

    Attributes:
        target_rate: Results per second and camera below which diagnostics report a warning (0 =
            off).
        image_timeout: Time in seconds without an image after which a camera is reported as stale
            (0 = never).
        latency_warning: p95 latency in seconds, from an image's stamp to its result, above which
            diagnostics report a warning (0 = off).
    """

    target_rate: float = setting(0.0, range=(0.0, 1e3))
    image_timeout: float = setting(5.0, range=(0.0, 3600.0))
    latency_warning: float = setting(0.0, range=(0.0, 3600.0))


@dataclass(frozen=True)
class FrameSettings(PostprocessConfig):
    """Configures the detections and masks of each image.

    Attributes:
        mask_encoding: Encoding of the masks in ~/instances.
    """

    mask_encoding: str = setting("bits", choices=tuple(MASK_ENCODINGS))


@dataclass(frozen=True)
class DepthSettings(Checked):
    """Configures the matching and the units of depth images.

    Attributes:
        depth_wait: Time in seconds that 3-D results wait for their depth image after the masks are
            published; this delays the next image only if queue_policy is all.
        depth_tolerance: Maximum difference in seconds between the stamps of an image and its depth
            image (0 = they must be equal).
        depth_unit: Metres per unit of the depth image (0 = by its encoding, as in REP 118: 0.001
            for 16UC1 and mono16, 1 for 32FC1).
        depth_max: Maximum depth in metres; larger values count as unknown.
        rectified: Whether images and depth images are rectified; if so, p of the camera info is
            used instead of k and the distortion d.
    """

    depth_wait: float = setting(0.05, range=(0.0, 10.0))
    depth_tolerance: float = setting(0.0, range=(0.0, 10.0))
    depth_unit: float = setting(0.0, range=(0.0, 1.0))
    depth_max: float = setting(100.0, range=(0.001, 10000.0))
    rectified: bool = setting(False)


@dataclass(frozen=True)
class Settings:
    """Holds all settings of the node in groups; a parameter is named after its field.

    The transition `configure` reads `model` and `inputs`; the others may change between two
    images.
    """

    model: ModelSettings = ModelSettings()
    inputs: InputSettings = InputSettings()
    limits: LimitSettings = LimitSettings()
    frames: FrameSettings = FrameSettings()
    keyframes: KeyframeConfig = KeyframeConfig(propagated_frames=PROPAGATE_AUTO)
    diagnostics: DiagnosticSettings = DiagnosticSettings()
    tracker: TrackerConfig = TrackerConfig()
    depth: DepthSettings = DepthSettings()


@dataclass(frozen=True)
class StartSettings(Checked):
    """Configures the start of the process.

    Attributes:
        autostart: Configure and activate the node at startup; if false, the node waits for a
            manager such as `ros2 lifecycle set`.
    """

    autostart: bool = setting(True)


def parameter_fields(table: Any) -> tuple[dataclasses.Field[Any], ...]:
    """Return the fields of a settings table that are parameters of the node."""
    return tuple(f for f in dataclasses.fields(table) if not f.metadata.get("for_papers"))


def tables() -> list[tuple[str, Any]]:
    """Return a title for each group of settings, which says when it is read, and its defaults."""
    found: list[tuple[str, Any]] = [("Start (read when the node starts)", StartSettings())]
    for field in dataclasses.fields(Settings):
        configured = field.name in READ_BY_CONFIGURE
        when = "by the transition configure" if configured else "before every image"
        title = f"{field.name.capitalize()} (read {when})"
        found.append((title, getattr(Settings(), field.name)))
    return found


def parameters_usage(program: str, summary: str, settings: Sequence[Any]) -> str:
    """Return the `--help` text of a ROS program.

    Args:
        program: name of the executable.
        summary: one sentence that describes the program.
        settings: dataclasses whose fields are the program's parameters.
    """
    lines = [
        f"usage: {program} [--ros-args -p PARAMETER:=VALUE ... -r FROM:=TO ...]",
        "",
        summary,
        "",
        "parameters:",
    ]
    for defaults in settings:
        for field in parameter_fields(defaults):
            lines.append(f"  {field.name} (default: {shown(getattr(defaults, field.name))})")
            indent = " " * 6
            lines += textwrap.wrap(
                describe(field), 92, initial_indent=indent, subsequent_indent=indent
            )
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Return a parameter's value as YAML has it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
