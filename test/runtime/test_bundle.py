from __future__ import annotations

import json
import re

import pytest

from yolact_ros.errors import BackendError, BundleError
from yolact_ros.runtime.bundle import Bundle, ModelDescription, TensorInfo, is_bundle
from yolact_ros.runtime.bundle_writer import write_bundle


def edit(bundle, **changes):
    path = bundle.folder / "model.json"
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def rewrite(bundle, tiny, folder, **changes):
    values = {"detect_form": "dense", "max_detections": 10, "source": {}, "versions": {}}
    values |= {"graphs": {"detect": bundle.graphs["detect"].path}, **changes}
    others = {name: values.pop(name) for name in ("graphs", "source", "versions")}
    return write_bundle(folder, ModelDescription(tiny.TINY, **values), **others)


def test_written_content_is_read_back(tiny_bundle, tiny):
    bundle = Bundle.open(tiny_bundle.folder)
    assert bundle.description.model == tiny.TINY
    assert bundle.description.detect_form == "dense"
    assert bundle.description.max_detections == 10
    assert re.fullmatch("[0-9a-f]{12}", bundle.description.identity)
    assert bundle.source["checkpoint"] == "tiny.pth"
    assert bundle.graphs["detect"].inputs == {"image": TensorInfo((1, 32, 40, 3), "uint8")}
    assert bundle.graphs["detect"].outputs["boxes"] == TensorInfo((2, 4), "float32")
    assert bundle == tiny_bundle


def test_a_bundle_for_video_lists_its_warps(tiny_video_bundle, tiny_bundle):
    assert tiny_video_bundle.description.warps == ("dis", "none")
    assert set(tiny_video_bundle.graphs) == {"keyframe", "non_keyframe_flow"}
    assert tiny_bundle.description.warps == ()


def test_the_number_of_nms_candidates_is_recorded_if_it_is_fixed(tiny_bundle, tiny, tmp_path):
    assert tiny_bundle.description.top_k is None  # as in bundles of earlier versions
    assert "top_k" not in json.loads((tiny_bundle.folder / "model.json").read_text())
    assert rewrite(tiny_bundle, tiny, tmp_path / "fixed", top_k=50).description.top_k == 50
    with pytest.raises(BundleError, match="top_k is 0; expected a whole number from 1 to 5000"):
        rewrite(tiny_bundle, tiny, tmp_path / "none", top_k=0)


@pytest.mark.parametrize(
    "entry", ["warps", "target", "precision", "batch", "source", "versions", "checksum"]
)
def test_a_description_that_lacks_an_entry_is_refused(tiny_bundle, entry):
    path = tiny_bundle.folder / "model.json"
    content = json.loads(path.read_text())
    del content[entry]
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=f"model.json.*({entry}|checksum)"):
        Bundle.open(tiny_bundle.folder)


@pytest.mark.parametrize(
    "warps, message",
    [
        (["magic"], "warps lists magic; expected some of: learned, dis, none"),
        (["learned", "dis"], "lacks these graphs: non_keyframe"),
        (3, "lacks an entry or has a bad one"),
    ],
)
def test_a_bundle_that_does_not_support_its_warps_is_refused(tiny_video_bundle, warps, message):
    edit(tiny_video_bundle, warps=warps)
    with pytest.raises(BundleError, match=f"model.json.*{message}"):
        Bundle.open(tiny_video_bundle.folder)


def test_warps_without_their_graphs_are_refused(tiny_bundle):
    edit(tiny_bundle, warps=["none"])
    with pytest.raises(BundleError, match="lacks these graphs: keyframe, non_keyframe_flow"):
        Bundle.open(tiny_bundle.folder)


def test_identity_changes_with_the_model(tiny_bundle, tiny, tmp_path):
    other = rewrite(tiny_bundle, tiny, tmp_path / "other", max_detections=11)
    assert other.description.identity != tiny_bundle.description.identity


def test_an_altered_graph_is_refused_by_name(tiny_bundle):
    path = tiny_bundle.folder / "detect.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"detect\.onnx was altered.*yolact export"):
        Bundle.open(tiny_bundle.folder)


def test_a_missing_graph_is_refused_by_name(tiny_bundle):
    (tiny_bundle.folder / "detect.onnx").unlink()
    with pytest.raises(BundleError, match=r"detect\.onnx is missing.*yolact export"):
        Bundle.open(tiny_bundle.folder)


def test_a_missing_folder_and_a_folder_without_description_are_reported(tmp_path):
    with pytest.raises(BundleError, match="nowhere does not exist"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="has no model.json"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"format": 1}, "has format 1; .* reads format 2. Export the bundle again"),
        ({"format": 3}, "has format 3.*update this one"),
        ({"detect_form": "on_demand"}, "lacks these graphs: boxes_and_coefficients, prototypes"),
        ({"detect_form": "with_nms"}, "detections lacks class_ids, mask_scores, scores"),
        ({"detect_form": "cloud"}, "detect_form is 'cloud'"),
        ({"graphs": {}}, "lacks these graphs: detect"),
        ({"graphs": {"detect": {"file": "detect.onnx"}}}, "sha256"),
        ({"max_detections": "many"}, "many"),
        ({"model": {"name": "x", "classes": ["a"], "colour": 1}}, "colour"),
        ({"model": {}}, "name"),
    ],
)
def test_a_garbled_description_is_reported(tiny_bundle, changes, message):
    edit(tiny_bundle, **changes)
    with pytest.raises(BundleError, match=f"model.json.*{message}"):
        Bundle.open(tiny_bundle.folder)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"format": 1', '{"format": 1}'])
def test_a_description_that_is_not_a_description_is_reported(tiny_bundle, content):
    (tiny_bundle.folder / "model.json").write_text(content)
    with pytest.raises(BundleError, match=r"model\.json"):
        Bundle.open(tiny_bundle.folder)


def test_a_graph_outside_the_folder_is_refused(tiny_bundle):
    graphs = json.loads((tiny_bundle.folder / "model.json").read_text())["graphs"]
    graphs["detect"]["file"] = "../bundle/detect.onnx"
    edit(tiny_bundle, graphs=graphs)
    with pytest.raises(BundleError, match="plain file name"):
        Bundle.open(tiny_bundle.folder)


def test_mask_rescoring_on_the_host_requires_its_graph(tiny_bundle, tiny, tmp_path):
    with pytest.raises(BundleError, match="lacks these graphs: rescore"):
        write_bundle(
            tmp_path / "other",
            ModelDescription(tiny.TINY_RESCORED, "dense", 10),
            graphs={"detect": tiny_bundle.graphs["detect"].path},
            source={},
            versions={},
        )


def test_a_bundle_is_replaced_and_other_files_stay(tiny_bundle, tiny):
    (tiny_bundle.folder / "notes.txt").write_text("mine")
    (tiny_bundle.folder / "rescore.onnx").write_bytes(b"of an earlier export")
    content = tiny_bundle.graphs["detect"].path.read_bytes()
    bundle = rewrite(tiny_bundle, tiny, tiny_bundle.folder, graphs={"detect": content})
    names = {path.name for path in bundle.folder.iterdir()}
    assert names == {"model.json", "detect.onnx", "notes.txt"}
    assert [path.name for path in bundle.folder.parent.iterdir()] == ["bundle"]


def test_a_folder_that_is_not_a_bundle_is_left_alone(tiny_bundle, tiny, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    with pytest.raises(BundleError, match="is not a bundle"):
        rewrite(tiny_bundle, tiny, folder)
    assert (folder / "thesis.txt").read_text() == "years"


def test_a_graph_that_is_not_onnx_leaves_no_files(tiny_bundle, tiny, tmp_path):
    with pytest.raises(BackendError, match="rejects"):
        rewrite(tiny_bundle, tiny, tmp_path / "other", graphs={"detect": b"no model"})
    assert not (tmp_path / "other").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_is_bundle_recognises_only_bundles(tiny_bundle, tmp_path):
    assert is_bundle(tiny_bundle.folder)
    assert not is_bundle(tmp_path)
    assert not is_bundle(tiny_bundle.folder / "detect.onnx")
