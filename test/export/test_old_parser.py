"""GridSample stays bilinear in a parser that knows the mode only by its old name.

TensorRT-RTX 1.5.0 stands for every NVIDIA parser from TensorRT 8.5 to 11.1: it silently samples
the nearest pixel where a graph of opset 20 says `linear`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from small_graphs import GRAPHS  # noqa: E402

OLD = "tensorrt-rtx-cu13==1.5.0.114"
FOLDER = Path(sys.prefix) / "old_parser"  # kept between runs

REPOSITORY = Path(__file__).resolve().parents[2]

# Prints the modes of all GridSample layers of the graphs that are named, and those after repair.
READ = """
import sys
import tensorrt_rtx as trt
from yolact_ros.runtime.backends.tensorrt.build import sample_bilinearly
assert trt.__version__.startswith("1.5."), trt.__version__
for path in sys.argv[1:]:
    log = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(log).create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(open(path, "rb").read()), parser.get_error(0).desc()
    every = [network.get_layer(index) for index in range(network.num_layers)]
    layers = [layer for layer in every if layer.type == trt.LayerType.GRID_SAMPLE]
    for layer in layers:
        layer.__class__ = trt.IGridSampleLayer
        assert not layer.align_corners and layer.sample_mode == trt.SampleMode.FILL
    for layer in every:
        if layer.type == trt.LayerType.RESIZE:
            layer.__class__ = trt.IResizeLayer
            transformation = layer.coordinate_transformation.name
            assert (layer.resize_mode.name, transformation) == ("LINEAR", "HALF_PIXEL")
    print(",".join(layer.interpolation_mode.name for layer in layers))
    sample_bilinearly(network, trt)
    print(",".join(layer.interpolation_mode.name for layer in layers))
"""


@pytest.fixture(scope="module")
def modes_of(tmp_path_factory):
    """Read a graph with the old parser; return the modes of GridSample before and after repair."""
    if not FOLDER.is_dir():
        scratch = tempfile.mkdtemp(dir=sys.prefix)
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", scratch, OLD]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"{OLD} cannot be installed: {result.stderr.strip().splitlines()[-1]}")
        os.replace(scratch, FOLDER)
    folder = tmp_path_factory.mktemp("graphs")

    def read(*contents: bytes) -> tuple[list[list[str]], list[list[str]]]:
        paths = [folder / f"{i}.onnx" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        result = subprocess.run(
            [sys.executable, "-c", READ, *map(str, paths)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (FOLDER, REPOSITORY)))},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        modes = [line.split(",") if line else [] for line in result.stdout.splitlines()]
        return modes[::2], modes[1::2]

    return read


def onnx_modes(content: bytes) -> list[str]:
    nodes = onnx.load_from_string(content).graph.node
    return [
        attribute.s.decode()
        for node in nodes
        if node.op_type == "GridSample"
        for attribute in node.attribute
        if attribute.name == "mode"
    ]


def test_no_graph_has_the_new_name(graph_of):
    modes = {(variant, name): onnx_modes(graph_of(variant, name)) for variant, name in GRAPHS}
    assert {mode for found in modes.values() for mode in found} == {"bilinear"}
    assert len(modes["yolact_plus", "detect"]) == 3  # its deformable layers


def test_every_graph_samples_bilinearly_in_the_old_parser(graph_of, modes_of):
    contents = [graph_of(variant, name) for variant, name in GRAPHS]
    read, _ = modes_of(*contents)
    for (variant, name), content, modes in zip(GRAPHS, contents, read, strict=True):
        assert len(modes) == len(onnx_modes(content)), (variant, name)
        assert set(modes) <= {"LINEAR"}, (variant, name)
    samples = {graph: len(modes) for graph, modes in zip(GRAPHS, read, strict=True)}
    assert samples["yolact_plus", "detect"] == 3  # its deformable layers
    assert samples["yolact_edge", "non_keyframe"] and samples["yolact_edge", "non_keyframe_flow"]


def test_the_old_parser_reads_the_new_name_as_nearest_until_repaired(graph_of, modes_of):
    """The old parser has the fault, so the test above can fail."""
    model = onnx.load_from_string(graph_of("yolact_plus", "detect"))
    for node in model.graph.node:
        if node.op_type == "GridSample":
            for attribute in node.attribute:
                if attribute.name == "mode":
                    attribute.s = b"linear"
    (opset,) = (entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    opset.version = 20
    (read,), (repaired,) = modes_of(model.SerializeToString())
    assert read == ["NEAREST"] * 3 and repaired == ["LINEAR"] * 3
