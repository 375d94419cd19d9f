"""Define the options of an export, and which of them are compatible."""

from __future__ import annotations

from dataclasses import dataclass

from yolact_ros.config import Checked, PostprocessConfig, setting
from yolact_ros.errors import ConfigError


@dataclass(frozen=True)
class ExportOptions(Checked):
    """Configures an export."""

    max_detections: int = setting(100, "maximum number of detections per image")
    nms: str = setting(
        "host",
        "where NMS and re-scoring run: on the host, which is faster on a CPU, or in the graph",
        choices=("host", "graph"),
    )
    top_k: int = setting(
        PostprocessConfig.top_k,
        "candidates per class for NMS inside the graph, which compares all pairs of them",
    )
    masks: str = setting(
        "host",
        "where masks are assembled from prototypes; graph is for GPUs and requires --nms graph; "
        "masks are always upsampled on the host",
        choices=("host", "graph"),
    )
    keyframes: bool = setting(
        False,
        "write graphs for video, in which images between keyframes reuse the deep features of the "
        "keyframes; single images are not affected",
    )
    half_weights: bool = setting(
        False, "store weights as float16: half the file size, arithmetic in float32"
    )
    target: str = setting(
        "onnxruntime",
        "runtime of the graphs; tensorrt, for which `yolact engine` builds engines, implies --nms "
        "graph and uses only operators that TensorRT supports",
        choices=("onnxruntime", "tensorrt"),
    )
    precision: str = setting(
        "fp32",
        "arithmetic precision, with --target tensorrt",
        choices=("fp32", "fp16"),
    )
    batch: int = setting(
        1, "images per run, with --target tensorrt, for several cameras", range=(1, 64)
    )
    deform_conv: str = setting(
        "auto",
        "form of deformable convolution: standard operators, which run everywhere, or the "
        "operator DeformConv of ONNX Runtime and of TensorRT 10.1 and later; auto is deform_conv "
        "for onnxruntime, grid_sample for tensorrt",
        choices=("auto", "grid_sample", "deform_conv"),
    )
    sampling: str = setting(
        "float",
        "precision of GridSample with --precision fp16; half halves the memory traffic of "
        "deformable layers but rounds sampling positions",
        choices=("float", "half"),
    )

    @property
    def nms_in_graph(self) -> bool:
        """Return whether the graph ends in finished detections."""
        return self.nms == "graph" or self.target == "tensorrt"

    @property
    def deform_conv_form(self) -> str:
        """Return the form of deformable convolution; auto runs wherever the target does."""
        usual = "deform_conv" if self.target == "onnxruntime" else "grid_sample"
        return usual if self.deform_conv == "auto" else self.deform_conv

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigError: a value is not allowed, or options cannot be combined.
        """
        super().__post_init__()
        PostprocessConfig(max_detections=self.max_detections, top_k=self.top_k)  # checks both
        on_cpu = self.target == "onnxruntime"
        rules = (
            (
                on_cpu and (self.precision != "fp32" or self.batch > 1),
                "Half precision and batches are for --target tensorrt; a CPU computes in float32, "
                "and --half-weights halves the file size.",
            ),
            (
                self.half_weights and not on_cpu,
                "--half-weights is for ONNX Runtime; TensorRT has --precision fp16.",
            ),
            (
                self.sampling == "half" and self.precision != "fp16",
                "sampling is 'half'; expected float, or half together with precision fp16.",
            ),
            (
                self.masks == "graph" and not self.nms_in_graph,
                "masks is 'graph'; expected host, or graph together with nms graph.",
            ),
            (
                self.top_k != PostprocessConfig.top_k and not self.nms_in_graph,
                "With --nms host, top_k is set at run time; omit --top-k.",
            ),
            (
                self.keyframes and self.batch > 1,
                "Graphs for video process one image per run; export them with --batch 1.",
            ),
        )
        for broken, message in rules:
            if broken:
                raise ConfigError(message)
