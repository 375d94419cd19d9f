"""`yolact export`: export a checkpoint to a bundle, which runs without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yolact_ros.config import PostprocessConfig

if TYPE_CHECKING:
    from yolact_ros.export.to_bundle import OutputError

# Number of inputs on which each graph is compared with torch.
QUICK_IMAGES, THOROUGH_IMAGES = 2, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "checkpoint",
        help="checkpoint (official ones too), or a shipped model or bundle to export again",
    )
    parser.add_argument("-o", "--output", required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--max-detections",
        type=int,
        default=100,
        metavar="N",
        help="maximum number of detections per image (default: %(default)s)",
    )
    parser.add_argument(
        "--nms",
        choices=("host", "graph"),
        default="host",
        help="where NMS and re-scoring run: on the host, which is faster on a CPU, or in the "
        "graph (default: %(default)s)",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=PostprocessConfig.top_k,
        metavar="N",
        help="candidates per class for NMS inside the graph, which compares all pairs of them "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--masks",
        choices=("host", "graph"),
        default="host",
        help="where masks are assembled from prototypes; graph is for GPUs and requires --nms "
        "graph; masks are always upsampled on the host (default: %(default)s)",
    )
    parser.add_argument(
        "--keyframes",
        action="store_true",
        help="write graphs for video, in which images between keyframes reuse the deep features "
        "of the keyframes; single images are not affected",
    )
    parser.add_argument(
        "--half-weights",
        action="store_true",
        help="store weights as float16: half the file size, arithmetic in float32",
    )
    parser.add_argument(
        "--target",
        choices=("onnxruntime", "tensorrt"),
        default="onnxruntime",
        help="runtime of the graphs; tensorrt, for which `yolact engine` builds engines, implies "
        "--nms graph and uses only operators that TensorRT supports (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="arithmetic precision, with --target tensorrt (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="images per run, with --target tensorrt, for several cameras (default: 1)",
    )
    parser.add_argument(
        "--deform-conv",
        choices=("grid_sample", "deform_conv"),
        help="form of deformable convolution: standard operators, which run everywhere, or the "
        "operator DeformConv of ONNX Runtime and of TensorRT 10.1 and later (default: "
        "deform_conv for onnxruntime, grid_sample for tensorrt)",
    )
    parser.add_argument(
        "--sampling",
        choices=("float", "half"),
        default="float",
        help="precision of GridSample with --precision fp16; half halves the memory traffic of "
        "deformable layers but rounds sampling positions (default: %(default)s)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="compare with torch on more images, and print the largest difference of each output",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export the checkpoint, compare with torch, write the bundle, and print a summary."""
    from yolact_ros.cli.models import find_checkpoint
    from yolact_ros.export.to_bundle import export_bundle

    report = export_bundle(
        find_checkpoint(arguments.checkpoint),
        arguments.output,
        nms=arguments.nms,
        masks=arguments.masks,
        top_k=arguments.top_k,
        max_detections=arguments.max_detections,
        keyframes=arguments.keyframes,
        half_weights=arguments.half_weights,
        target=arguments.target,
        precision=arguments.precision,
        batch=arguments.batch,
        deform_conv=arguments.deform_conv,
        sampling=arguments.sampling,
        images=THOROUGH_IMAGES if arguments.compare else QUICK_IMAGES,
    )
    if arguments.compare:
        _print_rows(report.rows)
    worst = max(row.error for row in report.rows)
    print(f"Largest relative difference from torch: {worst:.1e}")
    halves = [row.stored_error for row in report.rows if row.stored_error is not None]
    if arguments.precision == "fp16":
        print(f"In half precision: {max(halves):.1e}")
    print(f"{report.megabytes:.1f} MB in {report.seconds:.1f} s -> {arguments.output}")
    return 0


def _print_rows(rows: Sequence[OutputError]) -> None:
    print(f"{'graph':<19}{'output':<16}{'relative error':>16}{'stored weights':>16}")
    for row in rows:
        stored = "" if row.stored_error is None else f"{row.stored_error:.1e}"
        print(f"{row.graph:<19}{row.output:<16}{row.error:>16.1e}{stored:>16}")
