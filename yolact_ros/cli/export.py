"""`yolact export`: a checkpoint becomes a bundle that runs without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yolact_ros.export.to_bundle import OutputError

# Inputs that each graph is compared on.
QUICK_IMAGES, THOROUGH_IMAGES = 2, 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("checkpoint", help="a checkpoint of `yolact train` or `yolact convert`")
    parser.add_argument("-o", "--output", required=True, metavar="BUNDLE", help="folder to write")
    parser.add_argument(
        "--max-detections",
        type=int,
        default=100,
        metavar="N",
        help="most detections of one image (default: %(default)s)",
    )
    parser.add_argument(
        "--nms",
        choices=("host", "graph"),
        default="host",
        help="where NMS and re-scoring run: on the host, which is faster on a CPU, or inside the "
        "graph (default: %(default)s)",
    )
    parser.add_argument(
        "--masks",
        choices=("host", "graph"),
        default="host",
        help="where prototypes are assembled to masks, which are then enlarged on the host; graph "
        "is for a GPU and NMS inside the graph (default: %(default)s)",
    )
    parser.add_argument(
        "--keyframes",
        action="store_true",
        help="for video: write graphs that let the images between keyframes live on the "
        "keyframes' deep features; single images work as without",
    )
    parser.add_argument(
        "--half-weights",
        action="store_true",
        help="store weights as float16: half the size, float32 arithmetic",
    )
    parser.add_argument(
        "--target",
        choices=("onnxruntime", "tensorrt"),
        default="onnxruntime",
        help="what the graphs are written for; tensorrt, whose engines `yolact engine` builds, "
        "means --nms graph and operators that TensorRT has (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of the arithmetic, for --target tensorrt (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="images of one run, of several cameras, for --target tensorrt (default: 1)",
    )
    parser.add_argument(
        "--deform-conv",
        choices=("grid_sample", "deform_conv"),
        help="form of deformable convolution: standard operators that run everywhere, or the "
        "operator DeformConv, which ONNX Runtime and TensorRT 10.1 and later have (default: "
        "deform_conv for onnxruntime, grid_sample for tensorrt)",
    )
    parser.add_argument(
        "--sampling",
        choices=("float", "half"),
        default="float",
        help="arithmetic of GridSample with --precision fp16; half moves half the bytes in "
        "deformable layers and rounds sampling positions (default: %(default)s)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="compare with torch on more images, and print the largest difference of each output",
    )


def run(arguments: argparse.Namespace) -> int:
    """Export, compare with torch, write, and print what was done."""
    from yolact_ros.export.to_bundle import export_bundle

    report = export_bundle(
        arguments.checkpoint,
        arguments.output,
        nms=arguments.nms,
        masks=arguments.masks,
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
