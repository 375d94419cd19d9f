"""`yolact quantize`: quantize a bundle to int8."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.cli.settings import documented, number
from yolact_ros.errors import BundleError

if TYPE_CHECKING:
    import numpy as np

    from yolact_ros.config import ModelConfig
    from yolact_ros.export.int8_bundle import QuantizedGraph

SHOWN_LAYERS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments.

    Example:
        models/parts -o models/parts_int8 --images data/parts/train

    Options:
        bundle: shipped model or bundle folder, in float32.
        --output: folder to write.
        --images: images, folders or videos for calibration; choose ones similar to those that will
            be segmented.
        --count: number of calibration images, taken at even intervals.
        --target: library that will run the bundle; TensorRT accepts only symmetric int8.
        --float-above: keep a layer in float if quantizing it alone changes an output by more than
            this fraction.
        --float-layers: keep exactly these layers in float instead of measuring which to keep.
    """
    add = documented(parser, add_arguments)
    add("bundle", metavar="BUNDLE")
    add("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    add("--images", type=Path, required=True, nargs="+", metavar="PATH")
    add("--count", **number(1, 10**9, 100))
    add("--target", choices=("onnxruntime", "tensorrt"), default="onnxruntime")
    add("--float-above", **number(0.0, 1e9, 0.05))
    add("--float-layers", nargs="*", metavar="LAYER")


def run(arguments: argparse.Namespace) -> int:
    """Quantize the bundle and print a summary."""
    from yolact_ros.export.int8_bundle import quantize_bundle
    from yolact_ros.runtime.bundle import Bundle
    from yolact_ros.runtime.shipped import find_model

    source = find_model(arguments.bundle)
    model = Bundle.open(source).description.model
    images = calibration_images(arguments.images, model, count=arguments.count)
    graphs = quantize_bundle(
        source,
        arguments.output,
        images,
        target=arguments.target,
        float_above=arguments.float_above,
        float_layers=arguments.float_layers,
    )
    for graph in graphs:
        _print_graph(graph)
    print(f"Calibrated on {len(images)} images -> {arguments.output}")
    return 0


def calibration_images(
    paths: Sequence[Path], model: ModelConfig, *, count: int
) -> list[np.ndarray]:
    """Read `count` evenly spaced images, and convert them to network inputs.

    Raises:
        BundleError: there is no image at the paths, or one of those chosen cannot be decoded.
    """
    from tqdm import tqdm

    from yolact_ros.runtime.images.files import count_frames, find_files, read_frames
    from yolact_ros.runtime.preprocess import prepare_image

    files = find_files(paths)
    total = count_frames(files)
    if not total:
        raise BundleError(f"There are no calibration images in {', '.join(map(str, paths))}.")
    count = min(count, total)
    wanted = {round(i * (total - 1) / max(count - 1, 1)) for i in range(count)}
    frames = tqdm(read_frames(files), total=total, desc="read", unit="image", leave=False)
    tensors = []
    for index, frame in enumerate(frames):
        if index not in wanted:
            continue
        if frame.image is None:
            raise BundleError(f"{frame.fault} Remove it from the calibration images.")
        tensors.append(prepare_image(frame.image, model)[0])
    return tensors


def _print_graph(graph: QuantizedGraph) -> None:
    """Print the most sensitive layers of a graph and the result."""
    worst = sorted(graph.errors.items(), key=lambda item: -item[1])[:SHOWN_LAYERS]
    width = max((len(layer) for layer, _ in worst), default=0)
    print(f"{graph.graph}:")
    if worst:
        print(f"  largest {len(worst)} errors of layers quantized alone")
    for layer, error in worst:
        print(f"  {layer:<{width}}  {error:.4f}{'  float' if layer in graph.float_layers else ''}")
    before, after = graph.megabytes
    print(
        f"  {graph.layers - len(graph.float_layers)} of {graph.layers} layers in int8; "
        f"outputs differ by {graph.error:.3f}; {before:.1f} -> {after:.1f} MB"
    )
