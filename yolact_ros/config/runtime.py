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
    """Configures the library that runs a network.

    Attributes:
        backend: Library that runs the network; auto: PyTorch for a checkpoint, TensorRT for a
            bundle exported for it if there is a GPU, otherwise the library that `yolact benchmark
            --compare --store` found fastest on this machine, by default ONNX Runtime.
        threads: CPU threads of the backend (0 = chosen by the backend).
        device: Index of the GPU, if the backend uses one.
        provider: Device that the library uses: cpu; cuda or tensorrt with a build of ONNX Runtime
            that supports them; with OpenVINO also gpu, npu (both Intel's) or auto (a GPU if there
            is one, otherwise the CPU).
        precision: Precision of the arithmetic of OpenVINO, or of provider tensorrt (f32 or f16
            only); bf16 and f16 are faster where the hardware supports them, and change results
            slightly.
        build_engine: Whether to build TensorRT engines when a model is opened, which can take
            minutes.
    """

    backend: str = setting(
        "auto", choices=("auto", "onnxruntime", "openvino", "tensorrt", "torch")
    )
    threads: int = setting(0, range=(0, 256))
    device: int = setting(0, range=(0, 63))
    provider: str = setting("cpu", choices=("cpu", "cuda", "tensorrt", "gpu", "npu", "auto"))
    precision: str = setting("f32", choices=("f32", "bf16", "f16"))
    build_engine: str = setting("if_missing", choices=("never", "if_missing", "always"))


@dataclass(frozen=True)
class PostprocessConfig(Checked):
    """Configures how raw network output becomes detections.

    Attributes:
        score_threshold: Minimum class score of a detection.
        nms: NMS algorithm: fast (YOLACT) and greedy (standard, slower) work per class, cross_class
            (fast) across classes.
        nms_iou_threshold: NMS removes a detection whose box IoU with a better one exceeds this.
        top_k: Maximum number of candidates that enter NMS: of each class, or of all classes
            together if nms is cross_class.
        max_detections: Maximum number of detections per image.
        mask_threshold: Value of the soft mask above which a pixel belongs to the object.
        crop_masks: Crop each mask to its box plus one prototype cell.
        rescore_masks: Multiply scores by the predicted mask IoU, if the network predicts it
            (YOLACT++).
        all_classes: Multi-label NMS: keep every class of a prior whose best class passes the
            threshold (reproduces the published mAP).
        integer_boxes: Truncate box corners to whole pixels (reproduces the published mAP).
    """

    score_threshold: float = setting(0.3, range=(0.0, 1.0))
    nms: str = setting("fast", choices=("fast", "cross_class", "greedy"))
    nms_iou_threshold: float = setting(0.5, range=(0.0, 1.0))
    top_k: int = setting(200, range=(1, 5000))
    max_detections: int = setting(100, range=(1, 1000))
    mask_threshold: float = setting(0.5, range=(0.0, 1.0))
    crop_masks: bool = setting(True, for_papers=True)
    rescore_masks: bool = setting(True, for_papers=True)
    all_classes: bool = setting(False, for_papers=True)
    integer_boxes: bool = setting(False, for_papers=True)

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

    Attributes:
        keyframe_interval: Run the full network on at least every Nth image (1 = every image). On
            the others, models that were exported with --keyframes reuse its deep features; models
            for single images run in full there as well, unless detections are propagated.
        max_feature_age: Maximum age of reused features in seconds; a longer gap between two images
            also restarts the stream.
        change_threshold: Change since the last keyframe that triggers a new one: motion as a
            fraction of the image's sides, or brightness as a fraction of its range.
        warp: How keyframe features are warped to the current image: learned (the network's own
            flow), dis (optical flow), none, or auto (the first of these that the model supports).
        propagated_frames: Number of images after each inference on which detections are propagated
            by optical flow instead of running the network; new objects appear only at the next
            inference (-1 = automatic: 1 on a CPU if images are at most 0.15 s apart, 0 on a GPU).
    """

    keyframe_interval: int = setting(5, range=(1, 1000))
    max_feature_age: float = setting(1.0, range=(0.0, 3600.0))
    change_threshold: float = setting(0.1, range=(0.0, 1.0))
    warp: str = setting("auto", choices=("auto", *WARPS))
    propagated_frames: int = setting(0, range=(PROPAGATE_AUTO, 100))


@dataclass(frozen=True)
class TrackerConfig(Checked):
    """Configures how detections of consecutive images are associated with objects.

    Attributes:
        tracking: Assign track ids to objects.
        track_iou: Minimum IoU, both of boxes and of masks, between a detection and the predicted
            position of an object.
        track_birth_score: Minimum mask score of a detection that starts a new track.
        track_hits: Number of consecutive images in which an object must be detected before it gets
            a track id.
        track_memory: Time in seconds for which an object keeps its track id without being
            detected.
    """

    tracking: bool = setting(True)
    track_iou: float = setting(0.1, range=(0.01, 1.0))
    track_birth_score: float = setting(0.5, range=(0.0, 1.0))
    track_hits: int = setting(3, range=(1, 100))
    track_memory: float = setting(1.0, range=(0.0, 3600.0))
