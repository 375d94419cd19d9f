"""Bundles on ONNX Runtime give the checkpoint's results in torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.config import BackboneConfig, FlowConfig, KeyframeConfig, PostprocessConfig  # noqa: E402
from yolact_ros.errors import BackendError, BundleError, WeightsError  # noqa: E402
from yolact_ros.export import to_bundle, to_onnx  # noqa: E402
from yolact_ros.export.compare import check_errors, relative_error, relative_errors  # noqa: E402
from yolact_ros.export.fold_weights import fold_weights  # noqa: E402
from yolact_ros.export.graphs import example_image  # noqa: E402
from yolact_ros.export.options import ExportOptions  # noqa: E402
from yolact_ros.export.recover import recover_checkpoint  # noqa: E402
from yolact_ros.export.to_bundle import export_bundle  # noqa: E402
from yolact_ros.export.to_onnx import halve_weights  # noqa: E402
from yolact_ros.model.deform_conv import DeformConv2d  # noqa: E402
from yolact_ros.model.graphs.detect import normalise  # noqa: E402
from yolact_ros.model.weights.checkpoint import (  # noqa: E402
    initialise_weights,
    load_model,
    save_checkpoint,
)
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.runtime.bundle import Bundle  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL, YOLACT_PLUS_RESNET50  # noqa: E402

TINY = replace(TABLETOP_MODEL, input_size=(256, 264), channels=16, num_prototypes=8)
TINY_DEFORMABLE = replace(
    YOLACT_PLUS_RESNET50,
    classes=("a", "b"),
    backbone=BackboneConfig("resnet50", (0, 0, 0, 3), 1),
    input_size=(256, 256),
    channels=8,
    flow=FlowConfig(channels=4),
)


def make_checkpoint(path, config):
    """Return a network whose random weights give a handful of confident detections."""
    torch.manual_seed(2)
    model = Yolact(config)
    initialise_weights(model)
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            torch.nn.init.normal_(module.offset_mask.weight, std=0.02)
        if isinstance(module, torch.nn.BatchNorm2d):  # as after a training
            module.running_mean.normal_(std=0.05)
            module.running_var.uniform_(0.8, 1.2)
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.Conv2d)) and module.bias is not None:
            torch.nn.init.normal_(module.bias, std=0.02)
    if model.feature_transform is not None:  # fresh, it would change nothing
        for parameter in model.feature_transform.parameters():
            torch.nn.init.normal_(parameter, mean=0.02, std=0.05)
    model.eval()
    with torch.no_grad():
        output = model(normalise(example_image(model, seed=0), config))
        model.head.class_logits.weight *= 2.5 / output.class_logits.std()
        model.head.coefficients.weight *= 2 / output.coefficients.std()
    save_checkpoint(path, model)
    return path


@pytest.fixture(scope="module", params=[TINY, TINY_DEFORMABLE], ids=["rescoring", "deformable"])
def checkpoint(request, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.pth", request.param)


@pytest.fixture(scope="module")
def video_bundle(checkpoint, tmp_path_factory):
    """Write the checkpoint and its bundle for video."""
    folder = tmp_path_factory.mktemp("video") / "bundle"
    report = export_bundle(checkpoint, folder, ExportOptions(keyframes=True))
    assert max(row.error for row in report.rows) < 1e-3
    return checkpoint, folder


def picture(seed):
    model = type("Model", (), {"config": replace(TINY, input_size=(301, 407))})
    return example_image(model, seed=seed)[0].numpy()


def assert_same_detections(ours, theirs):
    """Match each row with the nearest one of its class, because nearly equal scores may swap."""
    assert len(ours) == len(theirs) > 0
    for i in range(len(theirs)):
        distances = np.abs(ours.boxes - theirs.boxes[i]).max(axis=1)
        distances[ours.class_ids != theirs.class_ids[i]] = np.inf
        j = int(distances.argmin())
        assert distances[j] < 0.05
        assert ours.scores[j] == pytest.approx(theirs.scores[i], abs=1e-4)
        assert ours.mask_scores[j] == pytest.approx(theirs.mask_scores[i], abs=1e-3)
        differing = (ours[j].mask != theirs[i].mask).sum()
        assert differing <= 0.002 * ours[j].mask.size  # pixels on the threshold


@pytest.mark.parametrize("nms", ["host", "graph"])
def test_a_bundle_finds_what_the_checkpoint_finds(checkpoint, tmp_path, nms):
    report = export_bundle(
        checkpoint, tmp_path / "bundle", ExportOptions(nms=nms, max_detections=20)
    )
    assert max(row.error for row in report.rows) < 1e-3
    config = PostprocessConfig(score_threshold=0.3, max_detections=20)
    with (
        Segmenter.open(checkpoint, postprocess=config) as in_torch,
        Segmenter.open(tmp_path / "bundle", postprocess=config) as in_onnxruntime,
    ):
        for seed in range(2):
            assert_same_detections(
                in_onnxruntime.segment(picture(seed)), in_torch.segment(picture(seed))
            )


def moving_pictures(count):
    """Draw the views of a camera that moves by 5 pixels between two images."""
    scene = picture(3)
    height, width = scene.shape[:2]
    return [scene[10 : height - 10, 5 * i : width - 30 + 5 * i] for i in range(count)]


def test_a_bundle_for_video_finds_what_the_checkpoint_finds(video_bundle):
    checkpoint, bundle = video_bundle
    config = PostprocessConfig(score_threshold=0.3, max_detections=20)
    with (
        Segmenter.open(checkpoint, postprocess=config) as in_torch,
        Segmenter.open(bundle, postprocess=config) as in_onnxruntime,
    ):
        warps = in_torch.description.warps
        assert in_onnxruntime.description.warps == warps and {"dis", "none"} <= set(warps)
        for warp in warps:
            keyframes = KeyframeConfig(keyframe_interval=3, warp=warp, change_threshold=1.0)
            streams = in_torch.stream(keyframes), in_onnxruntime.stream(keyframes)
            kinds = []
            for image in moving_pictures(4):
                expected = streams[0].detect(image)
                found = streams[1].detect(image)
                assert_same_detections(found, expected)
                assert found.frame_type == expected.frame_type
                kinds.append(found.frame_type)
            assert kinds == ["keyframe", "partial", "partial", "keyframe"], warp


def test_a_bundle_for_video_serves_single_images(video_bundle):
    checkpoint, bundle = video_bundle
    with Segmenter.open(checkpoint) as in_torch, Segmenter.open(bundle) as in_onnxruntime:
        for seed in range(2):
            found = in_onnxruntime.segment(picture(seed))
            assert found.frame_type == "keyframe"
            assert_same_detections(found, in_torch.segment(picture(seed)))


@torch.no_grad()
def test_the_checkpoint_of_a_bundle_is_the_exported_network(video_bundle, tmp_path):
    checkpoint, bundle = video_bundle
    recover_checkpoint(bundle, tmp_path / "again.pth")
    first, again = load_model(checkpoint), load_model(tmp_path / "again.pth")
    assert again.config == first.config
    images = torch.randn(2, 3, *first.config.input_size)
    expected, features = first.keyframe(images)
    found, _ = again.keyframe(images)
    pairs = list(zip(found[:4], expected[:4], strict=True))  # the last serves training alone
    if first.feature_transform is not None:
        moved = (model.non_keyframe(images, features) for model in (again, first))
        pairs += list(zip(*(output[:4] for output in moved), strict=True))
    for ours, theirs in pairs:
        assert relative_error(ours.numpy(), theirs.numpy()) < 1e-4
    masks = torch.rand(3, 1, *first.config.prototype_size)
    torch.testing.assert_close(again.mask_rescoring(masks), first.mask_rescoring(masks))


def test_reuse_on_the_keyframes_own_image_changes_nothing(video_bundle):
    _, bundle = video_bundle
    with Segmenter.open(bundle) as segmenter:
        stream = segmenter.stream(KeyframeConfig(warp="none"))
        first, second = (stream.detect(picture(0)) for _ in range(2))
    assert second.frame_type == "partial"
    assert_same_detections(second, first)


def test_a_bundle_for_video_may_include_nms(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "tiny.pth", TINY)
    options = ExportOptions(nms="graph", max_detections=20, keyframes=True)
    report = export_bundle(checkpoint, tmp_path / "bundle", options)
    assert max(row.error for row in report.rows) < 1e-3
    with Segmenter.open(tmp_path / "bundle") as segmenter:
        stream = segmenter.stream()
        for image in moving_pictures(2):
            found = stream.detect(image)
            assert len(found) > 0
    assert found.frame_type == "partial"


def test_the_description_names_the_source_of_the_bundle(checkpoint, tmp_path):
    export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(max_detections=7))
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.description.max_detections == 7
    assert bundle.source["checkpoint"] == "tiny.pth"
    assert len(bundle.source["sha256"]) == 64
    assert bundle.versions["torch"] == torch.__version__


def test_no_path_of_the_exporting_machine_is_in_the_graph(checkpoint, tmp_path):
    export_bundle(checkpoint, tmp_path / "bundle")
    content = (tmp_path / "bundle" / "detect.onnx").read_bytes()
    assert b"yolact_ros" not in content
    assert b"site-packages" not in content


def test_half_weights_halve_the_file_and_hardly_change_the_scores(checkpoint, tmp_path):
    full = export_bundle(checkpoint, tmp_path / "full")
    half = export_bundle(checkpoint, tmp_path / "half", ExportOptions(half_weights=True))
    assert half.megabytes < 0.6 * full.megabytes
    stored = {row.output: row.stored_error for row in half.rows}
    assert 0 < stored["class_scores"] < 0.05


def test_halving_keeps_weights_that_half_precision_cannot_hold():
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    large = np.full((300,), 1e6, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [300])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [300])],
        [numpy_helper.from_array(large, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    halved = onnx.load_model_from_string(halve_weights(model.SerializeToString()))
    np.testing.assert_array_equal(numpy_helper.to_array(halved.graph.initializer[0]), large)


def test_a_graph_that_differs_is_not_written():
    with pytest.raises(BackendError, match="boxes 2.00e-03"):
        check_errors({"boxes": 2e-3, "scores": 1e-6}, graph="detect")
    with pytest.raises(BackendError, match="scores"):
        check_errors({"scores": float("nan")}, graph="detect")


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_a_bundle_with_wrongly_folded_batch_norms_is_not_written(tmp_path, monkeypatch, target):
    epsilons = []

    def fold_wrongly(model):
        for node in model.graph.node:
            for attribute in node.attribute:
                if (node.op_type, attribute.name) == ("BatchNormalization", "epsilon"):
                    epsilons.append(attribute.f)
                    attribute.f = 0.1
        fold_weights(model)

    checkpoint = make_checkpoint(tmp_path / "tiny.pth", TINY_DEFORMABLE)
    monkeypatch.setattr(to_onnx, "fold_weights", fold_wrongly)
    with pytest.raises(BackendError, match="'detect' differs from torch by .*Nothing was written"):
        export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(target=target), images=1)
    assert len(epsilons) == 3 and max(epsilons) < 1e-3  # those of the deformable layers
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_is_compared_with_the_network_as_it_was_before_folding(tmp_path, monkeypatch):
    checkpoint, compared = make_checkpoint(tmp_path / "tiny.pth", TINY_DEFORMABLE), []

    def compare(graph, content, **options):
        if graph.name == "detect":
            compared.append((graph.module.network, content))
        return relative_errors(graph, content, **options)

    monkeypatch.setattr(to_bundle, "relative_errors", compare)
    export_bundle(checkpoint, tmp_path / "bundle", images=1)
    ((network, content),) = compared
    expected = load_model(checkpoint)
    assert [type(layer) for layer in network.modules()] == [type(m) for m in expected.modules()]
    for name, values in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], values), name
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    assert b"BatchNormalization" not in content


def test_relative_error_by_hand():
    assert relative_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == 0.5
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.zeros(3), np.zeros(4)) == float("inf")


def test_a_folder_that_is_not_a_bundle_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BundleError, match="is no bundle|not a bundle|no bundle"):
        export_bundle(checkpoint, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_file_that_is_not_a_checkpoint_is_reported(tmp_path, capsys):
    path = tmp_path / "notes.pth"
    path.write_text("not weights")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        export_bundle(path, tmp_path / "bundle")
    assert main(["export", str(path), "-o", str(tmp_path / "bundle")]) == 1
    assert "notes.pth" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_the_command_line_prints_the_largest_differences(tmp_path, capsys):
    path = make_checkpoint(tmp_path / "tiny.pth", replace(TINY, mask_rescoring=False))
    assert main(["export", str(path), "-o", str(tmp_path / "bundle"), "--compare"]) == 0
    printed = capsys.readouterr().out
    for name in ("boxes", "class_scores", "coefficients", "prototypes"):
        assert name in printed
    assert str(tmp_path / "bundle") in printed
