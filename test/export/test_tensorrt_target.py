"""Graphs exported for TensorRT give torch's results on ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto  # noqa: E402

from yolact_ros.cli.main import main  # noqa: E402
from yolact_ros.config import FlowConfig, KeyframeConfig, PostprocessConfig  # noqa: E402
from yolact_ros.errors import BackendError, ConfigError  # noqa: E402
from yolact_ros.export.graphs import example_image  # noqa: E402
from yolact_ros.export.options import ExportOptions  # noqa: E402
from yolact_ros.export.to_bundle import export_bundle  # noqa: E402
from yolact_ros.model.deform_conv import DeformConv2d  # noqa: E402
from yolact_ros.model.graphs.detect import normalise  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights, save_checkpoint  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.runtime.backends.onnxruntime import OnnxRuntimeBackend  # noqa: E402
from yolact_ros.runtime.bundle import Bundle  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402
from yolact_ros.runtime.stream import submit_together  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

# YOLACT++ with all that TensorRT needs another form for, on the smallest backbone.
SMALL = replace(
    TABLETOP_MODEL,
    classes=("a", "b", "c"),
    deformable_levels=(4, 5),
    input_size=(249, 264),
    channels=8,
    num_prototypes=8,
    prior_scales=((16,), (32,), (64,), (128,), (256,)),
    flow=FlowConfig(channels=4),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Write a checkpoint of random weights that give a handful of confident detections."""
    torch.manual_seed(2)
    model = Yolact(SMALL)
    initialise_weights(model)
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            torch.nn.init.normal_(module.offset_mask.weight, std=0.02)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # so that values stay in the range of half, as in a trained network
        model.train()(normalise(example_image(model, seed=0), SMALL))
    for parameter in model.feature_transform.parameters():  # fresh, it would change nothing
        torch.nn.init.normal_(parameter, mean=0.02, std=0.05)
    model.eval()
    with torch.no_grad():
        output = model(normalise(example_image(model, seed=0), SMALL))
        model.head.class_logits.weight *= 2.5 / output.class_logits.std()
        model.head.coefficients.weight *= 2 / output.coefficients.std()
    path = tmp_path_factory.mktemp("checkpoint") / "small.pth"
    save_checkpoint(path, model)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """Export the checkpoint with each set of options only once."""
    made = {}

    def export(**options):
        key = str(sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("bundle") / "bundle"
            report = export_bundle(
                checkpoint, folder, ExportOptions(max_detections=20, **options), images=1
            )
            made[key] = Bundle.open(folder), report
        return made[key]

    return export


def images(count):
    model = type("Model", (), {"config": SMALL})
    return torch.cat([example_image(model, seed=seed) for seed in range(count)]).numpy()


def run(bundle, graph, inputs):
    backend = OnnxRuntimeBackend(bundle, threads=1)
    outputs = backend.run(graph, inputs)
    backend.close()
    return outputs


def assert_same_rows(ours, theirs, *, boxes, scores):
    """Match each row with the nearest one of its class, because nearly equal scores may swap."""
    wanted = np.flatnonzero(theirs["scores"] > 0.1)
    assert len(wanted) > 0
    for row in wanted:
        distance = np.abs(ours["boxes"] - theirs["boxes"][row]).max(axis=1)
        distance[ours["class_ids"] != theirs["class_ids"][row]] = np.inf
        near = int(distance.argmin())
        assert distance[near] < boxes
        for name in ("scores", "mask_scores"):
            assert ours[name][near] == pytest.approx(theirs[name][row], abs=scores)


def test_both_forms_of_deformable_convolution_find_the_same(exported):
    by_operator, _ = exported(nms="graph")
    by_sampling, report = exported(target="tensorrt")
    assert max(row.error for row in report.rows) < 1e-3
    assert b"DeformConv" in by_operator.graphs["detect"].path.read_bytes()
    assert b"DeformConv" not in by_sampling.graphs["detect"].path.read_bytes()
    ours, theirs = (run(b, "detect", {"image": images(1)}) for b in (by_sampling, by_operator))
    assert_same_rows(ours, theirs, boxes=1e-4, scores=1e-4)
    np.testing.assert_allclose(
        ours["prototypes"], theirs["prototypes"], atol=1e-3 * theirs["prototypes"].max()
    )


def test_fewer_candidates_find_the_same_where_classes_have_fewer(exported):
    usual, _ = exported(target="tensorrt")
    fewer, _ = exported(target="tensorrt", top_k=15)
    assert (usual.description.top_k, fewer.description.top_k) == (200, 15)
    assert largest_overlap_matrix(fewer) == 15 < largest_overlap_matrix(usual)
    ours, theirs = (run(b, "detect", {"image": images(1)}) for b in (fewer, usual))
    assert max(np.bincount(ours["class_ids"][ours["scores"] > 0])) <= 15
    # Those of a class that rank first are the same, whoever else competes.
    for class_id in range(3):
        first, expected = (
            found["scores"][(found["class_ids"] == class_id) & (found["scores"] > 0)][:3]
            for found in (ours, theirs)
        )
        np.testing.assert_allclose(first, expected, atol=1e-5)


def largest_overlap_matrix(bundle):
    """Return how many candidates of a class the graph compares with each other."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(bundle.graphs["detect"].path)).graph
    shapes = [
        [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    ]
    return max(s[1] for s in shapes if len(s) == 3 and s[0] == 3 and s[1] == s[2])


def test_tensorrts_plugin_can_be_requested(exported):
    by_sampling, _ = exported(target="tensorrt", precision="fp16")
    by_plugin, report = exported(target="tensorrt", precision="fp16", deform_conv="deform_conv")
    assert by_plugin.description.target == "tensorrt"
    graph = onnx.shape_inference.infer_shapes(onnx.load(by_plugin.graphs["detect"].path)).graph
    assert "GridSample" not in {node.op_type for node in graph.node}
    layers = [node for node in graph.node if node.op_type == "DeformConv"]
    assert len(layers) == 2
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types.values()
    for layer in layers:
        assert {types[name] for name in layer.input} == {onnx.TensorProto.FLOAT}
    # Positions are float in both, so they round the same elsewhere.
    assert max(row.error for row in report.rows) < 1e-3
    ours, theirs = (run(b, "detect", {"image": images(1)}) for b in (by_plugin, by_sampling))
    assert_same_rows(ours, theirs, boxes=2e-3, scores=5e-3)


def test_half_sampling_halves_the_traffic_of_deformable_layers_and_finds_the_same(exported):
    in_float, _ = exported(target="tensorrt", precision="fp16")
    in_half, report = exported(target="tensorrt", precision="fp16", sampling="half")
    for bundle, kind in ((in_float, TensorProto.FLOAT), (in_half, TensorProto.FLOAT16)):
        graph = onnx.shape_inference.infer_shapes(onnx.load(bundle.graphs["detect"].path)).graph
        types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
        samplers = [node for node in graph.node if node.op_type == "GridSample"]
        assert len(samplers) == 2
        for sampler in samplers:
            assert {types[name] for name in [*sampler.input, *sampler.output]} == {kind}
            # The positions are computed in float, and rounded once.
            makers = {name: node for node in graph.node for name in node.output}
            if kind == TensorProto.FLOAT16:
                cast = makers[sampler.input[1]]
                assert cast.op_type == "Cast" and types[cast.input[0]] == TensorProto.FLOAT
    assert max(row.error for row in report.rows) < 1e-3
    ours, theirs = (run(b, "detect", {"image": images(1)}) for b in (in_half, in_float))
    assert_same_rows(ours, theirs, boxes=4e-3, scores=1e-2)


def test_masks_of_the_graph_equal_those_of_the_host_up_to_eight_bits(exported):
    plain, _ = exported(target="tensorrt")
    bundle, _ = exported(target="tensorrt", masks="graph", keyframes=True)
    info = bundle.graphs["keyframe"].outputs
    assert "prototypes" not in info
    assert (info["masks"].shape, info["masks"].dtype) == ((20, *SMALL.prototype_size), "uint8")
    picture = np.random.default_rng(3).integers(0, 256, (300, 400, 3), np.uint8)
    step = 0.5 / 255 + 1e-5  # half a step, and float arithmetic in another order
    config = PostprocessConfig(score_threshold=0.1)
    for image in (images(1)[0], picture):
        (expected, soft), (found, rounded) = (
            soft_masks_of(
                Segmenter(OnnxRuntimeBackend(b, threads=1), b.description, config), image
            )
            for b in (plain, bundle)
        )
        assert len(expected) == len(found) > 0
        np.testing.assert_allclose(found.mask_scores, expected.mask_scores, atol=1e-5)
        np.testing.assert_allclose(rounded, soft, atol=step, rtol=0)
        for i, mask in enumerate(soft):
            differs = expected[i].mask != found[i].mask
            unsure = np.abs(enlarged(mask, image.shape[:2]) - 0.5) <= step
            assert unsure[differs].all()
    raw = run(bundle, "keyframe", {"image": images(1)})
    _, soft = soft_masks_of(
        Segmenter(OnnxRuntimeBackend(plain, threads=1), plain.description, config), images(1)[0]
    )
    np.testing.assert_allclose(raw["masks"][: len(soft)] / 255, soft, atol=step, rtol=0)
    np.testing.assert_array_equal(raw["masks"][: len(soft)][soft == 0], 0)  # the crop is inside


def test_masks_of_the_graph_serve_images_between_keyframes(exported):
    bundle, _ = exported(target="tensorrt", masks="graph", keyframes=True)
    assert all("masks" in info.outputs for info in bundle.graphs.values())
    stream = Segmenter(OnnxRuntimeBackend(bundle, threads=1), bundle.description).stream(
        KeyframeConfig(warp="none", change_threshold=1.0),
        postprocess=PostprocessConfig(score_threshold=0.1),
    )
    found = [stream.detect(images(1)[0]) for _ in range(2)]
    assert [one.frame_type for one in found] == ["keyframe", "partial"]
    assert all(len(one) for one in found)


def soft_masks_of(segmenter, image):
    """Return a segmenter's detections and their soft masks at the prototypes' size."""
    from yolact_ros.runtime.preprocess import prepare_image

    tensor, _ = prepare_image(image, SMALL)
    network = segmenter.network
    (run,) = network.submit(network.whole_graph, [{"image": tensor}])
    inference = network.interpret(run.fetch(), segmenter.postprocess, seconds=0.0)
    return segmenter.segment(image), inference.soft.dense()


def enlarged(soft, size):
    """Enlarge a soft mask to the size of the image with torch."""
    return torch.nn.functional.interpolate(
        torch.from_numpy(soft)[None, None], size, mode="bilinear", align_corners=False
    )[0, 0].numpy()


def test_prototypes_of_a_graph_that_outputs_masks_are_refused(exported):
    from yolact_ros.evaluate.prototypes import take_apart

    bundle, _ = exported(target="tensorrt", masks="graph", keyframes=True)
    with (
        Segmenter.open(bundle.folder) as segmenter,
        pytest.raises(BackendError, match="outputs no prototypes; export it with --masks host"),
    ):
        take_apart(segmenter, images(1)[0])
    with pytest.raises(ConfigError, match="masks is 'graph'; expected host, or graph together"):
        exported(masks="graph")


def test_a_batch_finds_what_its_images_find_one_by_one(exported):
    alone, _ = exported(target="tensorrt")
    together, report = exported(target="tensorrt", batch=2)
    assert max(row.error for row in report.rows) < 1e-3
    assert together.description.batch == 2
    infos = together.graphs["detect"].outputs
    assert {name: info.shape for name, info in infos.items()} == {
        name: (2, *info.shape) for name, info in alone.graphs["detect"].outputs.items()
    }
    pictures = images(2)
    found = run(together, "detect", {"image": pictures})
    for i in range(2):
        expected = run(alone, "detect", {"image": pictures[i : i + 1]})
        assert_same_rows({n: x[i] for n, x in found.items()}, expected, boxes=1e-4, scores=1e-4)


def test_a_bundle_for_several_images_segments_one_as_well(exported):
    """The rest of the batch is filled up with the last image."""
    alone, _ = exported(target="tensorrt")
    together, _ = exported(target="tensorrt", batch=2)
    picture = images(2)[1]
    with Segmenter.open(alone.folder) as theirs, Segmenter.open(together.folder) as ours:
        expected, found = theirs.segment(picture), ours.segment(picture)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.1)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("warp", ["learned", "dis", "none"])
def test_streams_that_share_runs_find_exactly_what_each_finds_alone(exported, warp):
    """Three cameras take turns, so keyframes of one coincide with other images of another."""
    bundle, report = exported(target="tensorrt", batch=2, keyframes=True)
    assert max(row.error for row in report.rows) < 1e-3
    for info in bundle.graphs.values():
        assert {t.shape[0] for t in (*info.inputs.values(), *info.outputs.values())} == {2}
    config = KeyframeConfig(warp=warp, keyframe_interval=3, change_threshold=1.0)
    scenes = np.repeat(np.repeat(images(3), 2, axis=1), 2, axis=2)
    with Segmenter.open(bundle.folder, postprocess=PostprocessConfig(score_threshold=0.1)) as one:
        together, alone = ([one.stream(config) for _ in range(3)] for _ in range(2))
        graphs, types = [], []
        for step in range(9):
            cameras = [step % 3, (step + 1) % 3][: 1 if step == 4 else 2]
            pictures = [scenes[c][10:460, 4 * step : 480 + 4 * step] for c in cameras]
            frames = [
                (together[c], together[c].prepare(picture))
                for c, picture in zip(cameras, pictures, strict=True)
            ]
            submit_together(frames)
            graphs.append({frame.step.graph for _, frame in frames})
            for camera, picture, (stream, frame) in zip(cameras, pictures, frames, strict=True):
                stream.fetch(frame)
                found, expected = stream.finish(frame), alone[camera].detect(picture)
                types.append(found.frame_type)
                assert found.frame_type == expected.frame_type
                assert len(found) == len(expected) > 0
                for name in ("class_ids", "scores", "mask_scores", "boxes"):
                    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
                for ours, theirs in zip(found.masks, expected.masks, strict=True):
                    np.testing.assert_array_equal(ours, theirs)
    partial = "non_keyframe" if warp == "learned" else "non_keyframe_flow"
    for mixture in ({"keyframe"}, {partial}, {"keyframe", partial}):
        assert mixture in graphs
    assert types.count("partial") >= 6


def test_half_precision_says_so_and_keeps_detections_float(exported):
    bundle, report = exported(target="tensorrt", precision="fp16", keyframes=True)
    assert bundle.description.target == "tensorrt"
    assert bundle.description.precision == "fp16"
    assert list(bundle.graphs) == ["keyframe", "non_keyframe_flow", "non_keyframe"]
    types = {n: info.dtype for n, info in bundle.graphs["keyframe"].outputs.items()}
    floats = ("boxes", "scores", "mask_scores", "coefficients", "prototypes")
    assert types == {
        "class_ids": "int32",
        **{name: "float32" for name in floats},
        **{name: "float16" for name in ("x4", "x5", "lateral")},
    }
    inputs = {n: info.dtype for n, info in bundle.graphs["non_keyframe_flow"].inputs.items()}
    assert inputs == {"image": "uint8", "x4": "float16", "x5": "float16", "flow": "float32"}
    assert max(row.error for row in report.rows) < 1e-3
    # Random weights amplify what half precision rounds; trained ones hardly do.
    limits = {"boxes": 2e-3, "scores": 2e-3, "mask_scores": 0.02, "class_ids": 0.0}
    for row in report.rows:
        assert row.stored_error <= limits.get(row.output, 0.15), row
    assert max(row.stored_error for row in report.rows) > 1e-5


@pytest.mark.parametrize("warp", ["learned", "dis"])
def test_half_precision_moves_boxes_by_less_than_half_a_pixel(checkpoint, exported, warp):
    bundle, _ = exported(target="tensorrt", precision="fp16", keyframes=True)
    config = PostprocessConfig(score_threshold=0.3, max_detections=20)
    keyframes = KeyframeConfig(keyframe_interval=2, warp=warp, change_threshold=1.0)
    with (
        Segmenter.open(checkpoint, postprocess=config) as in_torch,
        Segmenter.open(bundle.folder, postprocess=config) as in_half,
    ):
        streams = in_torch.stream(keyframes), in_half.stream(keyframes)
        scene = np.repeat(np.repeat(images(1)[0], 2, axis=0), 2, axis=1)
        for i in range(2):
            image = scene[10:460, 6 * i : 480 + 6 * i]
            expected = streams[0].detect(image)
            found = streams[1].detect(image)
            assert found.frame_type == expected.frame_type
            assert_near(found, expected)


def assert_near(found, expected):
    pairs, overlaps = 0, []
    for i in np.flatnonzero(expected.scores > 0.35):  # clear of the threshold
        distance = np.abs(found.boxes - expected.boxes[i]).max(axis=1)
        distance[found.class_ids != expected.class_ids[i]] = np.inf
        if not len(distance) or distance.min() > 5:
            continue  # NMS kept another one of two equals
        j = int(distance.argmin())
        pairs += 1
        assert distance[j] < 0.5
        assert found.scores[j] == pytest.approx(expected.scores[i], abs=0.02)
        ours, theirs = found[j].mask, expected[i].mask
        if theirs.sum() > 100:
            overlaps.append((ours & theirs).sum() / (ours | theirs).sum())
    # Masks of random weights have many pixels on the threshold; test_half_precision has real ones.
    assert np.median(overlaps) > 0.95
    assert pairs >= 0.9 * (expected.scores > 0.35).sum() > 0


def test_incompatible_options_are_refused(checkpoint, tmp_path, capsys):
    for options, message in [
        ({"precision": "fp16"}, "--target tensorrt"),
        ({"batch": 2}, "--target tensorrt"),
        ({"target": "tensorrt", "batch": 0}, "batch is 0"),
        ({"target": "tensorrt", "half_weights": True}, "--precision fp16"),
        ({"target": "tensorrt", "precision": "fp4"}, "expected one of: fp32, fp16"),
        ({"target": "tensorrt", "sampling": "half"}, "together with precision fp16"),
        ({"deform_conv": "plugin"}, "expected one of: auto, grid_sample, deform_conv"),
        ({"top_k": 50}, "set at run time; omit --top-k"),
        ({"target": "tensorrt", "top_k": 0}, "top_k is 0; expected a value from 1"),
        ({"target": "openvino"}, "expected one of: onnxruntime, tensorrt"),
    ]:
        with pytest.raises(ConfigError, match=message):
            export_bundle(checkpoint, tmp_path / "bundle", ExportOptions(**options))
    assert not (tmp_path / "bundle").exists()
    arguments = [str(checkpoint), "-o", str(tmp_path / "bundle"), "--precision", "fp16"]
    assert main(["export", *arguments]) == 1
    assert "--target tensorrt" in capsys.readouterr().err
