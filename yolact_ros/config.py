"""Configuration as frozen dataclasses: what a network is, and how its output is read.

A default stands once, on its field, with `doc` and `range` or `choices` in the field's metadata;
command-line help, ROS parameter descriptors and the tables in the documentation come from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from yolact_ros.errors import ConfigError

T = TypeVar("T")

# Per-channel statistics of ImageNet in OpenCV's order B, G, R, on the scale 0..255
# (dbolya/yolact data/config.py, MEANS and STD).
IMAGENET_MEAN_BGR = (103.94, 116.78, 123.68)
IMAGENET_STD_BGR = (57.38, 57.12, 58.40)

RESIZES = ("squash", "letterbox")
LETTERBOX_FILL_BGR = (104, 117, 124)  # ImageNet's mean, so that the border says nothing

# How the features of a keyframe can get to another image, best first.
WARPS = ("learned", "dis", "none")

BACKENDS = ("auto", "onnxruntime", "tensorrt", "torch")
PROVIDERS = ("cpu", "cuda", "tensorrt")
BUILD_POLICIES = ("never", "if_missing", "always")

STRIDES = (8, 16, 32, 64, 128)  # of P3..P7

# Five unpadded 3x3 convolutions of stride 2 must leave one cell: 63 -> 31 -> 15 -> 7 -> 3 -> 1.
MIN_RESCORING_SIDE = 63


def setting(
    default: Any,
    doc: str,
    *,
    range: tuple[float, float] | None = None,  # noqa: A002 - the name that metadata uses
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field that carries its own documentation and bounds."""
    metadata: dict[str, Any] = {"doc": doc}
    if range is not None:
        metadata["range"] = range
    if choices is not None:
        metadata["choices"] = choices
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(config: Any) -> None:
    """Hold every field made with `setting` against its range or choices.

    Raises:
        ConfigError: a value lies outside; the message names the field, the value and the bounds.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        where = f"{type(config).__name__}.{field.name}"
        if "range" in field.metadata:
            low, high = field.metadata["range"]
            if not low <= value <= high:
                raise ConfigError(f"{where} is {value}; expected a value from {low} to {high}.")
        if "choices" in field.metadata and value not in field.metadata["choices"]:
            expected = ", ".join(field.metadata["choices"])
            raise ConfigError(f"{where} is {value!r}; expected one of: {expected}.")


@dataclass(frozen=True)
class BackboneConfig:
    """Which backbone, and which of its 3x3 convolutions are deformable.

    Attributes:
        name: a key of `yolact_ros.model.backbones.BACKBONES`.
        deformable_blocks: for C2..C5, how many blocks at the end of the stage are deformable
            (YOLACT++; the rule is in `model.backbones.is_deformable`).
        deformable_interval: every how many blocks of those one is deformable (3 for ResNet-101).
    """

    name: str = "resnet50"
    deformable_blocks: tuple[int, int, int, int] = (0, 0, 0, 0)
    deformable_interval: int = 1


@dataclass(frozen=True)
class FlowConfig:
    """The partial feature transform of YolactEdge, which moves keyframe features by learned flow.

    The defaults are those of `yolact_edge_vid`.
    """

    channels: int = setting(
        64,
        "width of the flow network's first stage; each of the two behind doubles it",
        range=(4, 1024),
    )
    spa: bool = setting(
        True, "refine the moved features with the current frame's lateral (reference: SPA)"
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class ModelConfig:
    """A network: everything that its weights depend on, and how an image enters it.

    Attributes:
        name: the variant's name, e.g. `yolact_plus_resnet50`.
        classes: names of the foreground classes; class id 0 is the first of them.
        backbone: see `BackboneConfig`.
        input_size: (height, width) of the network's input in pixels; any size works.
        channels: width of the FPN, the protonet and the prediction head (256 in the papers).
        num_prototypes: K, prototypes and coefficients per instance.
        prior_scales: for P3..P7, the sides of the priors in input pixels.
        prior_ratios: aspect ratios, width over height.
        square_priors: height set equal to width, as in all YOLACT v1 checkpoints
            (reference: `use_square_anchors`).
        deformable_levels: those of P3..P5 whose 3x3 convolution in the FPN is deformable, e.g.
            (4, 5): for backbones that have no deformable form.
        mask_rescoring: the YOLACT++ network that predicts each mask's IoU.
        pixel_mean, pixel_std: normalisation in B, G, R order on the scale 0..255; the network
            itself sees RGB.
        resize: how an image is brought to `input_size`: `squash` ignores its aspect ratio, as all
            official weights expect; `letterbox` keeps it and fills the rest with
            `LETTERBOX_FILL_BGR`.
        flow: the learned transform of keyframe features; None for a network of single images.
    """

    name: str
    classes: tuple[str, ...]
    backbone: BackboneConfig = BackboneConfig()
    input_size: tuple[int, int] = (550, 550)
    channels: int = 256
    num_prototypes: int = 32
    prior_scales: tuple[tuple[float, ...], ...] = ((24,), (48,), (96,), (192,), (384,))
    prior_ratios: tuple[float, ...] = (1.0, 0.5, 2.0)
    square_priors: bool = True
    deformable_levels: tuple[int, ...] = ()
    mask_rescoring: bool = False
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN_BGR
    pixel_std: tuple[float, float, float] = IMAGENET_STD_BGR
    resize: str = setting(
        "squash",
        "how an image is brought to the input size: stretched, or with its aspect ratio kept "
        "and the rest filled",
        choices=RESIZES,
    )
    flow: FlowConfig | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.classes:
            raise ConfigError(f"Model {self.name!r} has no classes; name at least one.")
        if len(self.prior_scales) != len(STRIDES):
            raise ConfigError(
                f"Model {self.name!r}: prior_scales has {len(self.prior_scales)} levels; "
                f"expected {len(STRIDES)}, one tuple of scales for each of P3..P7."
            )
        if not set(self.deformable_levels) <= {3, 4, 5}:
            raise ConfigError(
                f"Model {self.name!r}: deformable_levels is {self.deformable_levels}; only P3, P4 "
                "and P5 have a convolution that can be deformable, so expected some of 3, 4, 5."
            )
        if min(self.input_size) < 32:
            raise ConfigError(
                f"Model {self.name!r}: input_size {self.input_size} is too small; "
                "both sides must be 32 pixels or more."
            )
        if self.mask_rescoring and min(self.prototype_size) < MIN_RESCORING_SIDE:
            raise ConfigError(
                f"Model {self.name!r}: mask re-scoring needs prototypes of at least "
                f"{MIN_RESCORING_SIDE} cells a side, these are {self.prototype_size}; "
                "use an input of 249 pixels or more, or mask_rescoring: false."
            )

    @property
    def num_classes(self) -> int:
        """Number of foreground classes."""
        return len(self.classes)

    @property
    def priors_per_cell(self) -> int:
        """Priors at each cell of a feature map (3 in YOLACT, 9 in YOLACT++)."""
        return len(self.prior_scales[0]) * len(self.prior_ratios)

    @property
    def feature_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of P3..P7: each stride-2 layer rounds up."""
        height, width = self.input_size
        return tuple((-(-height // s), -(-width // s)) for s in STRIDES)

    @property
    def prototype_size(self) -> tuple[int, int]:
        """(height, width) of the prototypes: twice P3."""
        height, width = self.feature_sizes[0]
        return 2 * height, 2 * width


@dataclass(frozen=True)
class BackendConfig:
    """Which library runs a network, and on what."""

    backend: str = setting(
        "auto",
        "library that runs the network; auto: PyTorch for a checkpoint, TensorRT for a bundle "
        "that was exported for it if there is a GPU, otherwise ONNX Runtime",
        choices=BACKENDS,
    )
    threads: int = setting(0, "CPU threads of the backend; 0: it decides", range=(0, 256))
    device: int = setting(0, "index of the GPU, where one is used", range=(0, 63))
    provider: str = setting(
        "cpu",
        "what ONNX Runtime computes with: the CPU, or CUDA or TensorRT through a build of ONNX "
        "Runtime that has it",
        choices=PROVIDERS,
    )
    build_engine: str = setting(
        "if_missing",
        "whether TensorRT's engines may be built when the model is opened, which can take minutes",
        choices=BUILD_POLICIES,
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class PostprocessConfig:
    """How detections are chosen from a network's raw output (reference: `layers/functions`)."""

    score_threshold: float = setting(
        0.3, "class score that a detection must exceed", range=(0.0, 1.0)
    )
    nms: str = setting(
        "fast",
        "how overlapping detections are thinned out: by YOLACT's Fast NMS in each class or across "
        "classes, or by standard NMS in each class, which is slower",
        choices=("fast", "cross_class", "greedy"),
    )
    nms_iou_threshold: float = setting(
        0.5, "box IoU with a better detection above which one is dropped", range=(0.0, 1.0)
    )
    top_k: int = setting(
        200, "candidates that enter NMS, of each class or across classes", range=(1, 5000)
    )
    max_detections: int = setting(100, "detections kept of one image", range=(1, 1000))
    mask_threshold: float = setting(
        0.5, "soft mask value above which a pixel belongs to the object", range=(0.0, 1.0)
    )
    crop_masks: bool = setting(True, "end each mask at its box, a prototype cell beyond")
    rescore_masks: bool = setting(
        True, "multiply mask scores by the predicted mask IoU, where a network predicts it"
    )
    all_classes: bool = setting(
        False,
        "of a prior whose best class exceeds the score threshold, let all classes enter Fast NMS, "
        "as for published mAP; their scores may be far below",
    )
    integer_boxes: bool = setting(False, "cut box corners to whole pixels, as for published mAP")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.all_classes and self.nms != "fast":
            raise ConfigError(
                f"PostprocessConfig.all_classes goes with nms 'fast' only; nms is {self.nms!r}."
            )


# What `eval.py` of dbolya/yolact evaluates with.
REFERENCE_POSTPROCESS = PostprocessConfig(
    score_threshold=0.05, all_classes=True, integer_boxes=True
)


# Seconds over which detections are moved unasked: images of a 10 Hz camera, if a little late.
AUTO_CARRY_S = 0.15
MOVED_AUTO = -1


@dataclass(frozen=True)
class KeyframeConfig:
    """When all of the network runs on an image of a stream, and how features move in between.

    Between keyframes the backbone stops at C3, and what the deeper levels gave for the last
    keyframe is moved to the current image (YolactEdge; `runtime.keyframe`).
    """

    keyframe_interval: int = setting(
        5, "every how many images of a stream is a keyframe; 1: each of them", range=(1, 1000)
    )
    max_feature_age: float = setting(
        1.0,
        "seconds between a keyframe and an image above which its features are too old, and "
        "between two images above which the stream counts as interrupted",
        range=(0.0, 3600.0),
    )
    change_threshold: float = setting(
        0.1,
        "change since the keyframe above which its features are of no use: motion as a fraction "
        "of the image's sides, or difference of brightness as a fraction of its range",
        range=(0.0, 1.0),
    )
    warp: str = setting(
        "auto",
        "how features move: by the network's own flow, by optical flow between the two images "
        "(DIS), or not at all; auto: the first of these that the model has",
        choices=("auto", *WARPS),
    )
    moved_frames: int = setting(
        0,
        "how many images behind each one that the network ran on get its detections, moved by "
        "optical flow; new objects wait for the next run; -1: one where the network runs on the "
        f"CPU, if it was taken within {AUTO_CARRY_S} s of the other, and none on a GPU",
        range=(MOVED_AUTO, 100),
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class TrackerConfig:
    """When two detections of a stream are one object (`runtime.tracking`)."""

    tracking: bool = setting(True, "give objects numbers that they keep from image to image")
    track_iou: float = setting(
        0.1,
        "IoU of boxes and of masks from which a detection may be an object of the images before, "
        "once that has been moved to where it is expected",
        range=(0.01, 1.0),
    )
    track_birth_score: float = setting(
        0.5,
        "mask score from which a detection that belongs to no object starts one",
        range=(0.0, 1.0),
    )
    track_hits: int = setting(
        3, "images in a row that must show an object before it gets a number", range=(1, 100)
    )
    track_memory: float = setting(
        1.0, "seconds for which an object that is not seen keeps its number", range=(0.0, 3600.0)
    )

    def __post_init__(self) -> None:
        check_settings(self)


def override(config: T, changes: Mapping[str, Any], *, where: str = "") -> T:
    """Return `config` with `changes` applied; nested dataclasses take nested mappings.

    Args:
        config: any frozen dataclass of this package.
        changes: field name to value, as read from YAML or JSON (lists become tuples).
        where: path of the field that holds `config`, for the error message.

    Raises:
        ConfigError: a key is unknown (the message lists near ones) or a value has another type.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(config))
    values: dict[str, Any] = {}
    for key, value in changes.items():
        path = f"{where}.{key}" if where else key
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=3) or sorted(fields)
            raise ConfigError(f"Unknown setting {path!r}; did you mean {', '.join(near)}?")
        nested = _dataclass_of(hints[key])
        if nested is not None and isinstance(value, Mapping):
            current = getattr(config, key)
            values[key] = override(nested() if current is None else current, value, where=path)
        else:
            values[key] = _coerce(value, hints[key], path)
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def to_plain(config: Any) -> dict[str, Any]:
    """Turn a configuration into dicts, lists and scalars that JSON and YAML can hold."""
    return {
        field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)
    }


def model_from_plain(values: Mapping[str, Any]) -> ModelConfig:
    """Rebuild a `ModelConfig` from what `to_plain` made of it.

    Raises:
        ConfigError: keys are missing or unknown, or values have another type.
    """
    missing = {"name", "classes"} - set(values)
    if missing:
        raise ConfigError(f"The model's configuration lacks: {', '.join(sorted(missing))}.")
    return override(ModelConfig(name=str(values["name"]), classes=("class",)), values)


def _dataclass_of(hint: Any) -> Any:
    """The dataclass that a field holds, also where the field may be None; else None."""
    kinds = (hint, *typing.get_args(hint))
    return next((k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)), None)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _coerce(value: Any, hint: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} is {value!r}; expected a list.")
        arguments = typing.get_args(hint)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            items = [arguments[0]] * len(value)
        else:
            items = list(arguments)
            if len(items) != len(value):
                raise ConfigError(f"{path} has {len(value)} values; expected {len(items)}.")
        return tuple(_coerce(item, kind, path) for item, kind in zip(value, items, strict=True))
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _coerce(value, next(a for a in typing.get_args(hint) if a is not type(None)), path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))
    ):
        raise ConfigError(f"{path} is {value!r}; expected a value of type {hint.__name__}.")
    return value
