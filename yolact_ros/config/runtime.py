"""Configure inference: backend, post-processing, keyframes and tracking."""

from __future__ import annotations

from dataclasses import dataclass

from yolact_ros.config.fields import Checked, setting
from yolact_ros.errors import ConfigError

# How the features of a keyframe are warped to another image, best first.
WARPS = ("learned", "dis", "none")

# Models that come with the package.
SHIPPED_MODELS = ("tabletop", "tools", "everyday")
DEFAULT_MODEL = "tabletop"


@dataclass(frozen=True)
class BackendConfig(Checked):
    """Configures the library that runs a network."""

    backend: str = setting(
        "auto",
        "Library that runs the network; auto: PyTorch for a checkpoint, TensorRT for a bundle "
        "that was exported for it if there is a GPU, otherwise what `yolact benchmark --compare "
        "--store` found fastest on this machine, or ONNX Runtime",
        choices=("auto", "onnxruntime", "openvino", "tensorrt", "torch"),
    )
    threads: int = setting(0, "CPU threads of the backend (0 = its own choice)", range=(0, 256))
    device: int = setting(0, "Index of the GPU, if one is used", range=(0, 63))
    provider: str = setting(
        "cpu",
        "Device of the library: cpu; cuda or tensorrt with a build of ONNX Runtime that has it; "
        "gpu or npu (Intel's) with OpenVINO, or its auto: a GPU if there is one, otherwise cpu",
        choices=("cpu", "cuda", "tensorrt", "gpu", "npu", "auto"),
    )
    precision: str = setting(
        "f32",
        "Arithmetic of OpenVINO, and f16 also of provider tensorrt; bf16 and f16 are faster where "
        "the hardware has them, and change results slightly",
        choices=("f32", "bf16", "f16"),
    )
    build_engine: str = setting(
        "if_missing",
        "When TensorRT engines are built on opening a model, which can take minutes",
        choices=("never", "if_missing", "always"),
    )


@dataclass(frozen=True)
class PostprocessConfig(Checked):
    """Configures how raw network output becomes detections."""

    score_threshold: float = setting(0.3, "Minimum class score of a detection", range=(0.0, 1.0))
    nms: str = setting(
        "fast",
        "NMS algorithm: fast (YOLACT, per class), cross_class (fast, across classes), greedy "
        "(standard, per class, slower)",
        choices=("fast", "cross_class", "greedy"),
    )
    nms_iou_threshold: float = setting(
        0.5,
        "Box IoU with a better detection above which NMS removes a detection",
        range=(0.0, 1.0),
    )
    top_k: int = setting(
        200, "Maximum number of candidates for NMS, per class or across classes", range=(1, 5000)
    )
    max_detections: int = setting(100, "Maximum number of detections per image", range=(1, 1000))
    mask_threshold: float = setting(
        0.5, "Soft mask value above which a pixel belongs to the object", range=(0.0, 1.0)
    )
    crop_masks: bool = setting(
        True, "Crop each mask to its box plus one prototype cell", for_papers=True
    )
    rescore_masks: bool = setting(
        True,
        "Multiply scores by the predicted mask IoU, if the network predicts it (YOLACT++)",
        for_papers=True,
    )
    all_classes: bool = setting(
        False,
        "Multi-label NMS: keep every class of a prior whose best class passes the threshold "
        "(reproduces the published mAP)",
        for_papers=True,
    )
    integer_boxes: bool = setting(
        False,
        "Truncate box corners to whole pixels (reproduces the published mAP)",
        for_papers=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.all_classes and self.nms != "fast":
            raise ConfigError(
                f"PostprocessConfig.all_classes requires nms 'fast'; nms is {self.nms!r}."
            )


# The settings that `eval.py` of dbolya/yolact uses.
REFERENCE_POSTPROCESS = PostprocessConfig(
    score_threshold=0.05, all_classes=True, integer_boxes=True
)


# Maximum gap of automatic propagation: images of a 10 Hz camera, with some tolerance.
MAX_AUTO_GAP_S = 0.15
PROPAGATE_AUTO = -1


@dataclass(frozen=True)
class KeyframeConfig(Checked):
    """Configures keyframes, feature reuse and propagation.

    Between keyframes the backbone stops at C3, and the deeper features of the last keyframe are
    warped to the current image (YolactEdge).
    """

    keyframe_interval: int = setting(
        5,
        "Run the full network on every Nth image (1 = every image); requires a model for video",
        range=(1, 1000),
    )
    max_feature_age: float = setting(
        1.0,
        "Maximum age in seconds of reused features; a longer gap between two images also "
        "restarts the stream",
        range=(0.0, 3600.0),
    )
    change_threshold: float = setting(
        0.1,
        "Change since the keyframe that forces a new one: motion as a fraction of the image's "
        "sides, or brightness as a fraction of its range",
        range=(0.0, 1.0),
    )
    warp: str = setting(
        "auto",
        "How keyframe features are warped to the current image: learned (the network's own "
        "flow), dis (optical flow) or none; auto = the first of these that the model supports",
        choices=("auto", *WARPS),
    )
    propagated_frames: int = setting(
        0,
        "Images after each inference to which its detections are propagated by optical flow "
        "instead of running the network; new objects appear at the next inference; -1 (auto): 1 "
        f"on a CPU if images are at most {MAX_AUTO_GAP_S} s apart, 0 on a GPU",
        range=(PROPAGATE_AUTO, 100),
    )


@dataclass(frozen=True)
class TrackerConfig(Checked):
    """Configures how detections of consecutive images are associated with objects."""

    tracking: bool = setting(True, "Assign track ids to objects")
    track_iou: float = setting(
        0.1,
        "Minimum IoU of boxes and of masks between a detection and the predicted position of "
        "an object",
        range=(0.01, 1.0),
    )
    track_birth_score: float = setting(
        0.5, "Minimum mask score of a detection that starts a new object", range=(0.0, 1.0)
    )
    track_hits: int = setting(
        3, "Consecutive images that must show an object before it gets an id", range=(1, 100)
    )
    track_memory: float = setting(
        1.0, "Seconds for which an unseen object keeps its id", range=(0.0, 3600.0)
    )
