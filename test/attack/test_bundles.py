"""A damaged bundle is either refused with a message or runs like the undamaged one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from mutations import mutate_bytes, mutate_json

from yolact_ros.errors import BundleError, YolactError
from yolact_ros.runtime.bundle import Bundle, checksum
from yolact_ros.runtime.bundle_writer import exchange
from yolact_ros.runtime.segmenter import Segmenter

onnx = pytest.importorskip("onnx")

PICTURE = np.full((32, 40, 3), (200, 60, 20), np.uint8)


def write_description(folder, content, *, consistent=True):
    if consistent and isinstance(content, dict):
        content = {**content, "checksum": checksum(content)}
    (folder / "model.json").write_text(json.dumps(content))


def replace_graph(bundle, content):
    """Replace a graph and update every record of its hash."""
    graph = bundle.graphs["detect"]
    graph.path.write_bytes(content)
    text = (bundle.folder / "model.json").read_text()
    description = json.loads(text.replace(graph.sha256, hashlib.sha256(content).hexdigest()))
    write_description(bundle.folder, description)


def run(folder):
    with Segmenter.open(folder) as segmenter:
        return segmenter.segment(PICTURE)


def outcome(folder):
    """Segment with a bundle; return None if it is refused with a message."""
    try:
        return run(folder)
    except YolactError as error:
        assert len(str(error)) > 20
        return None


@pytest.mark.parametrize("consistent", [True, False])
def test_random_descriptions(tiny_bundle, consistent):
    random = np.random.default_rng(17)
    good = json.loads((tiny_bundle.folder / "model.json").read_text())
    refused = 0
    for _ in range(250):
        write_description(tiny_bundle.folder, mutate_json(good, random), consistent=consistent)
        refused += outcome(tiny_bundle.folder) is None
    assert refused > (100 if consistent else 240)


def test_random_graphs(tiny_bundle):
    random = np.random.default_rng(18)
    graph = tiny_bundle.graphs["detect"].path.read_bytes()
    expected = run(tiny_bundle.folder)
    refused = 0
    for _ in range(250):
        replace_graph(tiny_bundle, mutate_bytes(graph, random))
        found = outcome(tiny_bundle.folder)
        refused += found is None
        tiny_bundle.graphs["detect"].path.write_bytes(graph)
        tiny_bundle = restore(tiny_bundle, graph)
    assert refused > 100
    assert len(run(tiny_bundle.folder)) == len(expected)


def restore(bundle, graph):
    description = json.loads((bundle.folder / "model.json").read_text())
    description["graphs"]["detect"]["sha256"] = hashlib.sha256(graph).hexdigest()
    write_description(bundle.folder, description)
    return Bundle.open(bundle.folder)


@pytest.mark.parametrize(
    "entry, value, words",
    [
        (("model", "classes"), ["cup"], "class_scores of the graph 'detect' has shape"),
        (("model", "classes"), ["cup", "spoon", "fork"], "class_scores"),
        (("model", "num_prototypes"), 7, "coefficients|prototypes"),
        (("model", "num_prototypes"), 10**9, "coefficients|prototypes|num_prototypes"),
        (("model", "input_size"), [200000, 200000], "image of the graph|8192"),
        (("max_detections",), 0, "max_detections"),
        (("batch",), 2, "image of the graph"),
        (("graphs", "detect", "file"), "n" * 300, "File name too long"),
        (("graphs", "detect", "file"), "../detect.onnx", "plain file name"),
        (("graphs", "detect", "outputs"), {}, "outputs of the graph 'detect' are none"),
    ],
)
def test_a_description_of_another_graph_is_refused(tiny_bundle, entry, value, words):
    description = json.loads((tiny_bundle.folder / "model.json").read_text())
    holder = description
    for key in entry[:-1]:
        holder = holder[key]
    holder[entry[-1]] = value
    write_description(tiny_bundle.folder, description)
    with pytest.raises(BundleError, match=words):
        Bundle.open(tiny_bundle.folder)


@pytest.mark.parametrize(
    "entry, value", [("resize", "letterbox"), ("classes", ["spoon", "cup"]), ("name", "x")]
)
def test_an_edit_that_fits_the_graphs_is_detected(tiny_bundle, entry, value):
    description = json.loads((tiny_bundle.folder / "model.json").read_text())
    description["model"][entry] = value
    write_description(tiny_bundle.folder, description, consistent=False)
    with pytest.raises(BundleError, match="was edited"):
        Bundle.open(tiny_bundle.folder)


@pytest.mark.parametrize("content", [b"[" * 200_000, b"", b"\xff\xfe", b'{"format": Infinity}'])
def test_anything_but_a_description_is_refused(tiny_bundle, content):
    (tiny_bundle.folder / "model.json").write_bytes(content)
    with pytest.raises(BundleError, match="model.json"):
        Bundle.open(tiny_bundle.folder)


@pytest.mark.parametrize("name", ["model.json", "detect.onnx"])
def test_a_fifo_and_a_sparse_file_are_refused_at_once(tiny_bundle, name):
    path = tiny_bundle.folder / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.open(tiny_bundle.folder)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(30 << 30)
    with pytest.raises(BundleError, match="bytes; expected at most"):
        Bundle.open(tiny_bundle.folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_weights_that_are_not_finite_are_refused(tiny_bundle, value, where):
    model = onnx.load_from_string(tiny_bundle.graphs["detect"].path.read_bytes())
    tensor = onnx.numpy_helper.from_array(np.array([1, value], np.float32), "weights")
    if where == "initializer":
        model.graph.initializer.append(tensor)
    else:
        node = onnx.helper.make_node("Constant", [], ["unused"], value=tensor)
        model.graph.node.insert(0, node)
    replace_graph(tiny_bundle, model.SerializeToString())
    with pytest.raises(BundleError, match="NaN or infinity"):
        Bundle.open(tiny_bundle.folder)


def test_a_single_infinite_bound_is_not_a_weight(tiny_bundle):
    model = onnx.load_from_string(tiny_bundle.graphs["detect"].path.read_bytes())
    bound = onnx.numpy_helper.from_array(np.array(-np.inf, np.float32), "bound")
    model.graph.initializer.append(bound)
    replace_graph(tiny_bundle, model.SerializeToString())
    assert len(run(tiny_bundle.folder)) == 2


def test_weights_in_another_file_are_refused(tiny_bundle):
    path = tiny_bundle.graphs["detect"].path
    model = onnx.load_from_string(path.read_bytes())
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    replace_graph(tiny_bundle, path.read_bytes())
    with pytest.raises(BundleError, match="weights in another file"):
        Bundle.open(tiny_bundle.folder)


def test_a_graph_that_is_replaced_after_the_check_does_not_run(tiny_bundle):
    with Segmenter.open(tiny_bundle.folder) as segmenter:
        path = tiny_bundle.graphs["detect"].path
        path.write_bytes(path.read_bytes() + b"\x1a\0")
        with pytest.raises(YolactError, match="was replaced while the bundle was open"):
            segmenter.segment(PICTURE)


@pytest.mark.parametrize("in_one_step", [True, False])
def test_exchanged_folders_are_complete(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr("yolact_ros.runtime.bundle_writer.RENAME_EXCHANGE", 1 << 30)
    for name in ("scratch/new", "bundle"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "from").write_text(name)
    exchange(tmp_path / "scratch" / "new", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "from").read_text() == "scratch/new"
    shutil.rmtree(tmp_path / "scratch")


def test_an_interrupt_between_two_renames_keeps_the_old_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr("yolact_ros.runtime.bundle_writer.RENAME_EXCHANGE", 1 << 30)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "from").write_text("old")
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "scratch" / "new", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "from").read_text() == "old"
