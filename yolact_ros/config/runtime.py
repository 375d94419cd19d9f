"""How a network is run: by what, how its output is read, and what images leave to the next."""

from __future__ import annotations

from dataclasses import dataclass

from yolact_ros.config.fields import check_settings, setting
from yolact_ros.errors import ConfigError

# How the features of a keyframe can get to another image, best first.
WARPS = ("learned", "dis", "none")

# Models that come with the package.
SHIPPED_MODELS = ("tabletop", "tools")
DEFAULT_MODEL = "tabletop"

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "torch")
PROVIDERS = ("cpu", "cuda", "tensorrt", "gpu", "npu")
PRECISIONS = ("f32", "bf16", "f16")
BUILD_POLICIES = ("never", "if_missing", "always")


@dataclass(frozen=True)
class BackendConfig:
    """Which library runs a network, and on what."""

    backend: str = setting(
        "auto",
        "Library that runs the network; auto: PyTorch for a checkpoint, TensorRT for a bundle "
        "that was exported for it if there is a GPU, otherwise ONNX Runtime",
        choices=BACKENDS,
    )
    threads: int = setting(0, "CPU threads of the backend; 0: it decides", range=(0, 256))
    device: int = setting(0, "index of the GPU, where one is used", range=(0, 63))
    provider: str = setting(
        "cpu",
        "Device of the library: cpu; cuda or tensorrt with a build of ONNX Runtime that has it; "
        "gpu or npu (Intel's) with OpenVINO",
        choices=PROVIDERS,
    )
    precision: str = setting(
        "f32",
        "Arithmetic of OpenVINO; bf16 and f16 are faster where the hardware has them, and change "
        "results slightly",
        choices=PRECISIONS,
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
MAX_AUTO_GAP_S = 0.15
PROPAGATE_AUTO = -1


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
    propagated_frames: int = setting(
        0,
        "how many images behind each one that the network ran on get its detections, moved by "
        "optical flow; new objects wait for the next run; -1: one where the network runs on the "
        f"CPU, if it was taken within {MAX_AUTO_GAP_S} s of the other, and none on a GPU",
        range=(PROPAGATE_AUTO, 100),
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
