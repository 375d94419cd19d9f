"""The exported video graphs on ONNX Runtime match the reference's recorded passes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from yolact_ros.export.graphs import host_graphs, video_graphs  # noqa: E402
from yolact_ros.export.to_onnx import export_module  # noqa: E402
from yolact_ros.model.boxes import decode_boxes  # noqa: E402

TOLERANCE = 1e-4  # largest difference over largest value, as for the network in torch


def run(graph, inputs):
    """Export a graph and run it on numpy inputs, in the order of its arguments.

    The reference resizes to floats, so the graph is made for an image of floats.
    """
    example = (graph.example[0].float(), *graph.example[1:])
    content = export_module(graph.module, example, inputs=graph.inputs, outputs=graph.outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = dict(zip(graph.inputs, inputs, strict=True))
    return dict(zip(graph.outputs, session.run(list(graph.outputs), feed), strict=True))


def complete(outputs, graphs, priors):
    """Add boxes and coefficients of the priors that were recorded, and all prototypes."""
    cells, within = np.divmod(np.arange(0, len(priors), 230), 3)
    features, p3 = (torch.from_numpy(outputs[name]) for name in ("head_features", "p3"))
    with torch.no_grad():
        predicted = graphs["boxes_and_coefficients"].module(features, torch.from_numpy(cells))
        prototypes = graphs["prototypes"].module(p3)
    boxes, coefficients = (values.numpy()[np.arange(len(cells)), within] for values in predicted)
    return {
        **outputs,
        "boxes": boxes,
        "coefficients": coefficients,
        "prototypes": prototypes.numpy(),
    }


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def errors(outputs, golden, prefix, priors):
    """Return the relative errors of one pass under the names of our outputs."""
    offsets = golden[f"{prefix}_loc__every230"]
    expected = {
        "boxes": decode_boxes(*map(torch.from_numpy, (offsets, priors[::230]))).numpy(),
        "class_scores": softmax(golden[f"{prefix}_conf_logits__every230"])[:, 1:],
        "coefficients": golden[f"{prefix}_mask__every230"],
        "prototypes": golden[f"{prefix}_proto__every7"],
    }
    ours = {
        "boxes": outputs["boxes"],
        "class_scores": outputs["class_scores"][::230],
        "coefficients": outputs["coefficients"],
        "prototypes": outputs["prototypes"][::7, ::7],
    }
    if "x4" in outputs:
        for name, level in (("x4", 4), ("x5", 5)):
            expected[name] = golden[f"{prefix}_phase1_P{level}__every16ch_3px"]
            ours[name] = outputs[name][0, ::16, ::3, ::3]
    assert all(ours[name].shape == expected[name].shape for name in expected)
    return {
        name: float(np.abs(ours[name] - array).max() / np.abs(array).max())
        for name, array in expected.items()
    }


def test_exported_video_passes_give_the_results_of_the_reference(parity):
    case = parity("yolact_edge_vid_resnet50")
    graphs = {graph.name: graph for graph in video_graphs(host_graphs(case.network))}
    moved = cv2.warpAffine(
        case.image,
        np.float32([[1, 0, 9], [0, 1, 5]]),
        case.image.shape[1::-1],
        borderMode=cv2.BORDER_REPLICATE,
    )
    priors = case.network.priors.numpy()
    keyframe = run(graphs["keyframe"], [case.resize(case.image).numpy()])
    keyframe = complete(keyframe, graphs, priors)
    found = {"key": errors(keyframe, case.golden, "key", priors)}
    features = [keyframe[name] for name in ("x4", "x5", "lateral")]
    between = run(graphs["non_keyframe"], [case.resize(moved).numpy(), *features])
    between = complete(between, graphs, priors)
    found["non"] = errors(between, case.golden, "non", priors)
    print(found)  # shown by pytest -rP
    worst = {f"{key} {n}": e for key, part in found.items() for n, e in part.items()}
    assert len(worst) == 10
    assert {name: error for name, error in worst.items() if not error < TOLERANCE} == {}
