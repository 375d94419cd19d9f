"""Define the options of an export, and which of them are compatible."""

from __future__ import annotations

from dataclasses import dataclass

from yolact_ros.config import Checked, PostprocessConfig, setting
from yolact_ros.errors import ConfigError


@dataclass(frozen=True)
class ExportOptions(Checked):
    """Configures an export.

    Attributes:
        max_detections: Maximum number of detections per image.
        nms: Where NMS and re-scoring run: on the host, which is faster on a CPU, or in the graph.
        top_k: Maximum number of candidates per class for NMS in the graph, which compares every
            pair of them.
        masks: Where masks are assembled from prototypes: on the host, or in the graph, which suits
            GPUs and requires --nms graph; either way, the host upsamples them.
        keyframes: Write graphs for video, which reuse the deep features of keyframes for the
            images between them; results on single images do not change.
        half_weights: Store weights as float16, which halves the file size; the arithmetic remains
            in float32.
        target: Library that will run the graphs; tensorrt implies --nms graph, uses only operators
            that TensorRT supports, and lets `yolact engine` build engines.
        precision: Precision of the arithmetic; fp16 requires --target tensorrt.
        batch: Batch size, for several cameras; more than 1 requires --target tensorrt.
        deform_conv: How deformable convolutions are exported: grid_sample (standard operators,
            which run everywhere), deform_conv (the operator DeformConv, which requires ONNX
            Runtime 1.25 or later, OpenVINO, or TensorRT 10.1 or later), or auto (deform_conv for
            onnxruntime, grid_sample for tensorrt).
        sampling: Precision of GridSample with --precision fp16; half halves the memory traffic of
            deformable layers, but rounds sampling positions.
    """

    max_detections: int = setting(100)
    nms: str = setting("host", choices=("host", "graph"))
    top_k: int = setting(PostprocessConfig.top_k)
    masks: str = setting("host", choices=("host", "graph"))
    keyframes: bool = setting(False)
    half_weights: bool = setting(False)
    target: str = setting("onnxruntime", choices=("onnxruntime", "tensorrt"))
    precision: str = setting("fp32", choices=("fp32", "fp16"))
    batch: int = setting(1, range=(1, 64))
    deform_conv: str = setting("auto", choices=("auto", "grid_sample", "deform_conv"))
    sampling: str = setting("float", choices=("float", "half"))

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
        )
        for broken, message in rules:
            if broken:
                raise ConfigError(message)
