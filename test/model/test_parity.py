"""Our networks match the public reference, computed with the same weights and images.

Errors are the largest difference over the largest value of the reference's array. Two float32
programs that sum in another order differ by about 1e-6 here; 1e-4 leaves room for other CPUs.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

CASES = (
    "yolact_resnet50",
    "yolact_plus_resnet50",
    "yolact_edge_mobilenetv2",
    "yolact_edge_vid_resnet50",
)
TOLERANCE = 1e-4


def relative_error(ours, golden: np.ndarray) -> float:
    ours = np.asarray(ours)
    assert ours.shape == golden.shape
    return float(np.abs(ours - golden).max() / np.abs(golden).max())


def subsampled(images, output, priors) -> dict[str, np.ndarray]:
    """Return our arrays with the names and steps of the recorded ones."""
    return {
        "input__every22": images[0, :, ::22, ::22],
        "loc__every230": output.box_offsets[0, ::230],
        "conf_logits__every230": output.class_logits[0, ::230],
        "mask__every230": output.coefficients[0, ::230],
        "proto__every7": output.prototypes[0, ::7, ::7],
        "segm__every4ch_6px": output.semantic_logits[0, ::4, ::6, ::6],
        "priors__every230": priors[::230],
    }


@pytest.fixture(scope="module")
def passes(parity):
    """Run a case's network on its image; video cases run their keyframe and non-keyframe pass."""

    @functools.cache
    @torch.no_grad()
    def run(name: str) -> dict[str, np.ndarray]:
        case = parity(name)
        network = case.network
        images = case.prepare(case.image)
        if network.feature_transform is None:
            c3, c4, c5 = network.backbone(images)
            output = network(images)
            arrays = subsampled(images, output, network.priors)
            for level, tensor in enumerate((c3, c4, c5), start=1):
                arrays[f"backbone_{level}__every32ch_4px"] = tensor[0, ::32, ::4, ::4]
            for level, tensor in zip("34567", network.fpn(c3, c4, c5), strict=True):
                arrays[f"fpn_P{level}__every32ch_4px"] = tensor[0, ::32, ::4, ::4]
            return arrays
        moved = cv2.warpAffine(
            case.image,
            np.float32([[1, 0, 9], [0, 1, 5]]),
            case.image.shape[1::-1],
            borderMode=cv2.BORDER_REPLICATE,
        )
        next_images = case.prepare(moved)
        key, features = network.keyframe(images)
        sums = network.partial_sums(next_images, features)
        lateral = network.fpn.lateral(network.backbone.c3(next_images))
        arrays = {}
        for prefix, values in (
            ("key", subsampled(images, key, network.priors)),
            (
                "non",
                subsampled(
                    next_images, network.non_keyframe(next_images, features), network.priors
                ),
            ),
        ):
            arrays |= {f"{prefix}_{name}": array for name, array in values.items()}
        key_lateral = network.fpn.lateral(network.backbone.c3(images))
        x3 = network.fpn.merge_lateral(features.x4, key_lateral)
        for prefix, levels in (("key", (x3, features.x4, features.x5)), ("non", sums)):
            for level, tensor in zip("345", levels, strict=True):
                arrays[f"{prefix}_phase1_P{level}__every16ch_3px"] = tensor[0, ::16, ::3, ::3]
        for level, transform in zip(
            "45", network.feature_transform.predict(lateral, features), strict=True
        ):
            arrays[f"non_flow_P{level}"] = transform.flow
            arrays[f"non_scale_P{level}__every25ch_2px"] = transform.scale[0, ::25, ::2, ::2]
            arrays[f"non_bias_P{level}__every25ch_2px"] = transform.bias[0, ::25, ::2, ::2]
        return arrays

    return run


# Of the recorded arrays, these are of other parts: detections after NMS and masks, losses and
# gradients.
OTHER_PARTS = ("det_", "post_", "loss_", "grad_", "gt_", "match_", "maskiou_")


@pytest.mark.parametrize("name", CASES)
def test_the_network_gives_the_results_of_the_reference(name, parity, passes):
    golden = {
        key: array
        for key, array in parity(name).golden.items()
        if not key.removeprefix("key_").removeprefix("non_").startswith(OTHER_PARTS)
    }
    ours = passes(name)
    errors = {key: relative_error(ours[key], array) for key, array in golden.items()}
    print(name, {key: f"{error:.1e}" for key, error in errors.items()})  # shown by pytest -rP
    assert len(errors) >= 6
    assert {key: error for key, error in errors.items() if error > TOLERANCE} == {}


def test_mask_rescoring_gives_the_results_of_the_reference(parity):
    case = parity("yolact_plus_resnet50")
    masks = torch.from_numpy(case.golden["maskiou_given_in"].astype(np.float32))
    with torch.no_grad():
        ours = case.network.mask_rescoring(masks)
    # The masks were recorded as float16, which moves each value by up to 5e-4 of itself.
    assert relative_error(ours, case.golden["maskiou_given_out"]) < 5e-4


def test_a_keyframe_equals_the_pass_for_single_images(parity):
    case = parity("yolact_edge_vid_resnet50")
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        single = case.network(images)
        keyframe, _ = case.network.keyframe(images)
    for ours, expected in zip(keyframe, single, strict=True):
        torch.testing.assert_close(ours, expected)
