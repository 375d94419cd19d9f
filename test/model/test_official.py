"""Official state dicts are recognised, every entry is accounted for, and every fault is listed."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from yolact_ros.errors import WeightsError  # noqa: E402
from yolact_ros.model.weights.official import (  # noqa: E402
    OFFICIAL_VARIANTS,
    convert_official,
    entry_shapes,
    official_entries,
    recognise,
)
from yolact_ros.model.weights.official_names import rename, rules_of, strip_prefixes  # noqa: E402
from yolact_ros.variants import VARIANTS, variant  # noqa: E402

# Variants with the same entries; the first of each group stands for it below.
EQUAL_IN_SHAPE = (
    {"yolact_base", "yolact_im400", "yolact_im700"},
    {"yolact_edge_vid", "yolact_edge_vid_trainflow"},
    {"yolact_edge_vid_resnet50", "yolact_edge_vid_trainflow_resnet50"},
)
# YolactEdge's own copies of YOLACT's configurations are the same networks under its names.
EDGE_NAMES = {
    "edgerepo__yolact_base": "yolact_edge",
    "edgerepo__yolact_resnet50": "yolact_edge_resnet50",
    "edgerepo__yolact_resnet152": "yolact_resnet152",
}


@pytest.mark.parametrize(
    ("backbone", "official", "ours"),
    [
        ("resnet50", "backbone.conv1.weight", "backbone.conv1.weight"),
        (
            "resnet50",
            "backbone.layers.1.0.conv2.conv_offset_mask.bias",
            "backbone.layers.1.0.conv2.offset_mask.bias",
        ),
        ("darknet53", "backbone._preconv.1.running_var", "backbone.stem.1.running_var"),
        ("mobilenet_v2", "backbone.layers.0.0.weight", "backbone.stem.0.weight"),
        (
            "mobilenet_v2",
            "backbone.layers.1.0.conv.1.weight",
            "backbone.groups.1.0.project.0.weight",
        ),
        (
            "mobilenet_v2",
            "backbone.layers.6.2.conv.3.running_mean",
            "backbone.groups.6.2.project.1.running_mean",
        ),
        ("resnet50", "fpn.lat_layers.0.bias", "fpn.lateral_layers.2.bias"),
        ("resnet50", "fpn_phase_1.lat_layers.2.bias", "fpn.lateral_layers.0.bias"),
        ("resnet50", "fpn_phase_2.pred_layers.0.bias", "fpn.predict_layers.2.bias"),
        ("resnet50", "fpn_phase_2.downsample_layers.1.bias", "fpn.downsample_layers.1.bias"),
        ("resnet50", "module.semantic_seg_conv.bias", "semantic_head.bias"),
        (
            "resnet50",
            "flow_net.flow_net.pred3.bias.bias",
            "feature_transform.flow_net.head5.bias.bias",
        ),
        (
            "resnet50",
            "flow_net.pred2.conv.weight",
            "feature_transform.flow_net.head4.flow.weight",
        ),
        ("resnet50", "fpn_phase_1.pred_layers.0.bias", None),
        ("resnet50", "backbone.fc.weight", None),
    ],
)
def test_an_official_name_is_renamed_to_ours(backbone, official, ours):
    renames, _ = rules_of(replace(variant("yolact_base").backbone, name=backbone))
    assert rename(renames, strip_prefixes(official)) == ours


def test_there_is_a_state_dict_for_every_official_variant(state_dicts):
    names = {EDGE_NAMES.get(name, name) for name in state_dicts}
    assert names == set(OFFICIAL_VARIANTS)


def test_every_state_dict_is_recognised_by_its_entries_alone(state_dicts):
    for file, entries in state_dicts.items():
        name = EDGE_NAMES.get(file, file)
        expected = next((group for group in EQUAL_IN_SHAPE if name in group), {name})
        assert set(recognise(entries)) == expected, file


def test_every_entry_of_every_state_dict_is_accounted_for(state_dicts):
    for file, entries in state_dicts.items():
        config = variant(EDGE_NAMES.get(file, file))
        conversion = convert_official(entries, config)
        assert conversion.problems == ()
        assert len(conversion.weights) + len(conversion.leftovers) == len(entries)
        shapes = {name: tuple(tensor.shape) for name, tensor in conversion.weights.items()}
        assert shapes == dict(entry_shapes(config)), file


def test_only_the_flow_at_stride_8_and_mobilenets_end_are_left_out(state_dicts):
    for file, entries in state_dicts.items():
        config = variant(EDGE_NAMES.get(file, file))
        left = set(convert_official(entries, config).leftovers)
        if config.flow is not None:
            finest = ("flow_net.pred1.", "flow_net.upfeat2.", "flow_net.upflow2.")
            assert left == {name for name in entries if name.startswith(finest)}
            assert len(left) == 7
        elif config.backbone.name == "mobilenet_v2":
            end = ("backbone.layers.7.", "backbone.layers.8.")
            assert left == {name for name in entries if name.startswith(end)}
            assert len(left) == 24
        else:
            assert left == set()


def test_yolacts_file_fits_yolactedges_variant_of_the_same_network(state_dicts):
    conversion = convert_official(state_dicts["yolact_resnet50"], variant("yolact_edge_resnet50"))
    assert conversion.problems == ()


@pytest.fixture
def video(state_dicts):
    return dict(state_dicts["yolact_edge_vid_resnet50"])


@pytest.fixture
def image(state_dicts):
    return dict(state_dicts["yolact_resnet50"])


def test_a_network_saved_inside_data_parallel_is_recognised(image, video):
    for entries, name in ((image, "yolact_resnet50"), (video, "yolact_edge_vid_resnet50")):
        wrapped = {f"module.{entry}": tensor for entry, tensor in entries.items()}
        assert recognise(wrapped)[0] == name


def test_old_duplicates_and_levels_above_p7_are_left_out_with_their_reasons(image):
    old = dict(image)
    for name in ("backbone.layer1.0.conv1.weight", "backbone.layer4.2.bn3.running_var"):
        old[name] = torch.zeros(1)
    for level in (2, 3, 11):
        old[f"fpn.downsample_layers.{level}.weight"] = torch.zeros(256, 256, 3, 3)
    assert recognise(old) == ["yolact_resnet50"]
    leftovers = convert_official(old, variant("yolact_resnet50")).leftovers
    assert len(leftovers) == 5
    assert "before YOLACT 1.0" in leftovers["backbone.layer1.0.conv1.weight"]
    assert "above P7" in leftovers["fpn.downsample_layers.11.weight"]


def test_files_saved_by_yolactedge_after_evaluation_are_recognised(video):
    saved = {
        name.replace("flow_net.", "flow_net.flow_net.", 1)
        if name.startswith("flow_net.")
        else name: tensor
        for name, tensor in video.items()
    }
    for name, tensor in video.items():
        if name.startswith(("backbone.layers.0.", "backbone.layers.1.", "backbone.conv1.")):
            saved[f"partial_{name}"] = tensor
    assert recognise(saved)[0] == "yolact_edge_vid_resnet50"
    conversion = convert_official(saved, variant("yolact_edge_vid_resnet50"))
    assert "second copy" in conversion.leftovers["partial_backbone.conv1.weight"]
    assert len(conversion.weights) + len(conversion.leftovers) == len(saved)


def test_counters_that_an_old_file_lacks_are_zero_and_named(image):
    old = {name: t for name, t in image.items() if not name.endswith("num_batches_tracked")}
    assert recognise(old) == ["yolact_resnet50"]
    conversion = convert_official(old, variant("yolact_resnet50"))
    assert len(conversion.counters) == 53  # batch normalisations of ResNet-50
    assert all(counter == 0 for counter in conversion.counters.values())
    assert not set(conversion.counters) & set(conversion.weights)


def test_missing_extra_and_misshapen_entries_are_all_listed(image):
    del image["proto_net.10.bias"]
    image["proto_net.12.bias"] = torch.zeros(32)
    image["fpn.lat_layers.1.weight"] = torch.zeros(256, 1024, 3, 3)
    with pytest.raises(WeightsError) as caught:
        recognise(image)
    message = str(caught.value)
    assert "nearest is yolact_resnet50, with 3 entries" in message
    assert "missing: protonet.layers.10.bias" in message
    assert "unknown: proto_net.12.bias" in message
    assert (
        "shape of fpn.lat_layers.1.weight: (256, 1024, 3, 3), expected (256, 1024, 1, 1)"
        in message
    )


def test_two_entries_for_one_of_ours_are_listed(image):
    image["fpn_phase_1.lat_layers.0.bias"] = image["fpn.lat_layers.0.bias"]
    problems = convert_official(image, variant("yolact_resnet50")).problems
    assert problems == ("duplicate name: fpn_phase_1.lat_layers.0.bias",)


def test_a_video_file_does_not_pass_for_an_image_network(video):
    problems = convert_official(video, variant("yolact_edge_youtubevis_resnet50")).problems
    assert "unknown: spa.refine_convs.0.0.weight" in problems
    assert all("flow_net" in line or "spa." in line for line in problems)


def test_an_image_file_does_not_pass_for_a_video_network(state_dicts):
    entries = state_dicts["yolact_edge_youtubevis_resnet50"]
    problems = convert_official(entries, variant("yolact_edge_vid_resnet50")).problems
    assert problems and all("missing: feature_transform." in line for line in problems)


def test_files_of_other_programs_and_empty_ones_are_refused():
    with pytest.raises(WeightsError, match="do not form an official network"):
        recognise({"layer.weight": torch.zeros(3)})
    with pytest.raises(WeightsError, match="found nothing"):
        official_entries({}, source="empty.pth")


def test_a_training_checkpoint_of_another_program_is_refused_by_its_keys():
    with pytest.raises(WeightsError, match="found epoch, state_dict"):
        official_entries({"epoch": 3, "state_dict": {}}, source="x.pth")


def test_values_that_are_not_finite_are_refused():
    entries = {"a": torch.tensor([1.0, float("nan")]), "b": torch.tensor(3)}
    with pytest.raises(WeightsError, match="not finite in 1 entries: a"):
        official_entries(entries, source="x.pth")


def test_a_backbone_without_official_checkpoint_is_refused(image):
    with pytest.raises(WeightsError, match="efficientnet_lite0"):
        convert_official(image, VARIANTS["tabletop"])


def test_a_file_trained_on_other_classes_is_recognised_with_their_names(image):
    other = dict(image)
    for name in list(other):
        if "conf_layer" in name:
            other[name] = torch.zeros(3 * 3, *other[name].shape[1:])
        elif name.startswith("semantic_seg_conv"):
            other[name] = torch.zeros(2, *other[name].shape[1:])
    with pytest.raises(WeightsError, match="with 4 entries"):
        recognise(other)
    # Pascal's network differs only in the scales of its priors, which no entry shows.
    assert recognise(other, classes=("bolt", "nut")) == [
        "yolact_resnet50",
        "yolact_resnet50_pascal",
    ]
