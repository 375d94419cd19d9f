"""Configure a network: everything that its weights depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from yolact_ros.config.fields import Checked, override, setting
from yolact_ros.errors import ConfigError

# Per-channel statistics of ImageNet in OpenCV's order B, G, R, on the scale 0..255
# (dbolya/yolact data/config.py, MEANS and STD).
IMAGENET_MEAN_BGR = (103.94, 116.78, 123.68)
IMAGENET_STD_BGR = (57.38, 57.12, 58.40)

LETTERBOX_FILL_BGR = (104, 117, 124)  # ImageNet's mean, so that the border is neutral

MAX_INPUT_SIDE = 8192
STRIDES = (8, 16, 32, 64, 128)  # of P3..P7

# Five unpadded 3x3 convolutions of stride 2 must leave one cell: 63 -> 31 -> 15 -> 7 -> 3 -> 1.
MIN_RESCORING_SIDE = 63


@dataclass(frozen=True)
class BackboneConfig(Checked):
    """Selects the backbone, and which of its 3x3 convolutions are deformable.

    Attributes:
        name: Name of the backbone, a key of `yolact_ros.model.backbones.BACKBONES`.
        deformable_blocks: Number of blocks at the end of C2..C5 that are deformable (YOLACT++; the
            rule is in `model.backbones.is_deformable`).
        deformable_interval: Only every Nth of those blocks is deformable (3 for ResNet-101).
    """

    name: str = setting("resnet50")
    deformable_blocks: tuple[int, int, int, int] = setting((0, 0, 0, 0))
    deformable_interval: int = setting(1)

    def __post_init__(self) -> None:
        if not 1 <= self.deformable_interval <= 1000 or min(self.deformable_blocks) < 0:
            raise ConfigError(
                f"BackboneConfig: deformable_blocks is {self.deformable_blocks} and "
                f"deformable_interval {self.deformable_interval}; expected numbers of blocks, and "
                "an interval of 1 or more."
            )


@dataclass(frozen=True)
class FlowConfig(Checked):
    """Configures YolactEdge's partial feature transform, which warps features by learned flow.

    The defaults are those of `yolact_edge_vid`.

    Attributes:
        channels: Width of the flow network's first stage; each of the next two doubles it.
        spa: Refine the warped features with the lateral features of the current image (reference:
            SPA).
    """

    channels: int = setting(64, range=(4, 1024))
    spa: bool = setting(True)


MAX_CLASSES = 2**15


@dataclass(frozen=True)
class ModelConfig(Checked):
    """Configures a network: everything that its weights depend on, and how images are resized.

    Attributes:
        name: Name of the network, e.g. `yolact_plus_resnet50`.
        classes: Names of the foreground classes; class id 0 is the first of them.
        backbone: See `BackboneConfig`.
        input_size: Height and width of the network's input in pixels, from 32 to 8,192.
        channels: Width of the FPN, protonet and prediction head.
        num_prototypes: Number of prototypes, and of coefficients per instance.
        prior_scales: Sides of the priors of P3..P7 in input pixels.
        prior_ratios: Aspect ratios of the priors, width over height.
        square_priors: Make priors as high as they are wide, as in all YOLACT v1 checkpoints
            (reference: `use_square_anchors`).
        deformable_levels: Levels of P3..P5 with a deformable 3x3 convolution in the FPN, e.g.
            [4, 5], for backbones that have no deformable form.
        mask_rescoring: Predict the IoU of each mask, as YOLACT++ does.
        pixel_mean: Mean of the channels B, G, R on a scale of 0 to 255, which is subtracted.
        pixel_std: Standard deviation of the channels B, G, R, by which they are divided.
        resize: How images are resized to the input size: squash (stretched) or letterbox (aspect
            ratio kept, the rest filled).
        flow: Learned transform of keyframe features (null = none, for single images).
    """

    name: str
    classes: tuple[str, ...]
    backbone: BackboneConfig = BackboneConfig()
    input_size: tuple[int, int] = setting((550, 550))
    channels: int = setting(256, range=(1, 4096))
    num_prototypes: int = setting(32, range=(1, 1024))
    prior_scales: tuple[tuple[float, ...], ...] = setting(((24,), (48,), (96,), (192,), (384,)))
    prior_ratios: tuple[float, ...] = setting((1.0, 0.5, 2.0))
    square_priors: bool = setting(True)
    deformable_levels: tuple[int, ...] = setting(())
    mask_rescoring: bool = setting(False)
    pixel_mean: tuple[float, float, float] = setting(IMAGENET_MEAN_BGR)
    pixel_std: tuple[float, float, float] = setting(IMAGENET_STD_BGR)
    resize: str = setting("squash", choices=("squash", "letterbox"))
    flow: FlowConfig | None = setting(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        for fault in self._faults():
            raise ConfigError(f"Model {self.name!r}{fault}")

    def _faults(self) -> Iterator[str]:
        """Yield what is wrong; what follows a fault may rely on its absence."""
        if not self.classes:
            yield " has no classes; name at least one."
        if len(self.classes) > MAX_CLASSES:
            yield (
                f" has {len(self.classes)} classes; expected at most {MAX_CLASSES}, the limit of "
                "16-bit class ids."
            )
        if len(self.prior_scales) != len(STRIDES):
            yield (
                f": prior_scales has {len(self.prior_scales)} levels; expected {len(STRIDES)}, "
                "one tuple of scales for each of P3..P7."
            )
        if len({len(level) for level in self.prior_scales}) != 1:
            yield (
                ": prior_scales has levels of different lengths; expected the same number "
                "of scales for each of P3..P7."
            )
        positive = {
            "prior_scales": [s for level in self.prior_scales for s in level],
            "prior_ratios": self.prior_ratios,
            "pixel_std": self.pixel_std,
        }
        for name, values in positive.items():
            if not values or not all(0 < value < 1e6 for value in values):
                yield f": {name} is {values}; expected numbers above 0 and below 1e6."
        if not all(abs(value) < 1e6 for value in self.pixel_mean):
            yield f": pixel_mean is {self.pixel_mean}; expected numbers between -1e6 and 1e6."
        if not set(self.deformable_levels) <= {3, 4, 5}:
            yield (
                f": deformable_levels is {self.deformable_levels}; only P3, P4 and P5 have a "
                "convolution that can be deformable; expected some of 3, 4, 5."
            )
        if not 32 <= min(self.input_size) <= max(self.input_size) <= MAX_INPUT_SIDE:
            yield (
                f": input_size is {self.input_size}; expected both sides to be from 32 to "
                f"{MAX_INPUT_SIDE} pixels."
            )
        if self.mask_rescoring and min(self.prototype_size) < MIN_RESCORING_SIDE:
            yield (
                ": mask re-scoring requires prototypes of at least "
                f"{MIN_RESCORING_SIDE} cells per side, but these are {self.prototype_size}; "
                "use an input of 249 pixels or more, or mask_rescoring: false."
            )

    @property
    def num_classes(self) -> int:
        """Return the number of foreground classes."""
        return len(self.classes)

    @property
    def priors_per_cell(self) -> int:
        """Return the number of priors per cell of a feature map (3 in YOLACT, 9 in YOLACT++)."""
        return len(self.prior_scales[0]) * len(self.prior_ratios)

    @property
    def feature_sizes(self) -> tuple[tuple[int, int], ...]:
        """Return the (height, width) of P3..P7; each stride-2 layer rounds up."""
        height, width = self.input_size
        return tuple((-(-height // s), -(-width // s)) for s in STRIDES)

    @property
    def prototype_size(self) -> tuple[int, int]:
        """Return the (height, width) of the prototypes, twice that of P3."""
        height, width = self.feature_sizes[0]
        return 2 * height, 2 * width


def model_from_mapping(values: Mapping[str, Any]) -> ModelConfig:
    """Rebuild a `ModelConfig` from the result of `to_mapping`.

    Raises:
        ConfigError: keys are missing or unknown, or values have the wrong type.
    """
    missing = {"name", "classes"} - set(values)
    if missing:
        raise ConfigError(f"The model's configuration lacks: {', '.join(sorted(missing))}.")
    return override(ModelConfig(name=str(values["name"]), classes=("class",)), values)
