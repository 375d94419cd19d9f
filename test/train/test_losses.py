"""The losses match the reference's numbers and slow loops, even without any instance."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import recorded

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from yolact_ros.model.graphs.detect import normalise  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_official_weights  # noqa: E402
from yolact_ros.model.weights.official_names import rename, rules_of  # noqa: E402
from yolact_ros.model.yolact import Yolact, YolactOutput  # noqa: E402
from yolact_ros.train.losses import (  # noqa: E402
    LOSS_NAMES,
    LossConfig,
    class_loss,
    semantic_loss,
    yolact_losses,
)
from yolact_ros.train.mask_losses import (  # noqa: E402
    TrainedMasks,
    crop_regions,
    dice_losses,
    mask_iou_loss,
    resize_masks,
)
from yolact_ros.train.matching import (
    Target,  # noqa: E402
    match_priors,  # noqa: E402
)
from yolact_ros.variants import TABLETOP_MODEL, variant  # noqa: E402

CASES = ("yolact_resnet50", "yolact_plus_resnet50")
LETTERS = dict(zip(LOSS_NAMES, "BCMSI", strict=False))  # the reference has no box_mask


@pytest.fixture(scope="module")
def reference():
    """Run a recorded case once: return its arrays, our losses and the norms of our gradients."""

    @functools.cache
    def run(case):
        golden = recorded.arrays(case)
        network = Yolact(variant(case))
        load_official_weights(network, recorded.official_weights(case))
        for module in network.train().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        image = torch.from_numpy(recorded.picture(case).astype(np.float32)).permute(2, 0, 1)[None]
        image = nn.functional.interpolate(
            image, (550, 550), mode="bilinear", align_corners=False
        ).permute(0, 2, 3, 1)
        losses = yolact_losses(
            network(normalise(image, network.config)),
            [recorded_target(golden)],
            model=network,
            config=LossConfig(),
        )
        torch.stack(list(losses.values())).sum().backward()
        norms = {
            name: float(parameter.grad.norm())
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
        return golden, {name: float(loss.detach()) for name, loss in losses.items()}, norms

    return run


def recorded_target(golden):
    rows = torch.from_numpy(golden["gt_target"]).float()
    shape = golden["gt_masks__shape"]
    packed = golden["gt_masks__packbits"].reshape(shape[0], -1)
    masks = np.unpackbits(packed, axis=1, count=int(shape[1] * shape[2])).reshape(shape)
    crowds = int(golden["gt_num_crowds"][0])
    return Target(
        boxes=rows[:-crowds, :4],
        class_ids=rows[:-crowds, 4].long(),
        masks=torch.from_numpy(masks)[:-crowds],
        crowd_boxes=rows[-crowds:, :4],
        box_only=torch.zeros(len(rows) - crowds, dtype=torch.bool),
    )


@pytest.mark.parametrize("case", CASES)
def test_losses_equal_the_reference(reference, case):
    golden, losses, _ = reference(case)
    recorded = {
        name: float(golden[f"loss_{letter}"])
        for name, letter in LETTERS.items()
        if f"loss_{letter}" in golden
    }
    assert set(losses) == set(recorded)
    assert losses == pytest.approx(recorded, rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_reference(reference, case):
    golden, _, norms = reference(case)
    renames, _ = rules_of(variant(case).backbone)
    compared = 0
    for official, norm in zip(golden["grad_names"], golden["grad_norms"], strict=True):
        ours = rename(renames, str(official))
        if ours in norms:
            assert norms[ours] == pytest.approx(float(norm), rel=2e-3, abs=1e-6), ours
            compared += 1
    assert compared > 60


def random_target(generator, *, count, size=(256, 256), classes=3, crowds=0):
    height, width = size
    boxes, masks = [], torch.zeros(count, height, width, dtype=torch.uint8)
    for i in range(count):
        x1, y1 = (int(v) for v in torch.randint(0, 150, (2,), generator=generator))
        x2, y2 = x1 + 60, y1 + 80
        masks[i, y1:y2, x1:x2] = 1
        boxes.append([x1 / width, y1 / height, x2 / width, y2 / height])
    return Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        class_ids=torch.randint(0, classes, (count,), generator=generator),
        masks=masks,
        crowd_boxes=torch.rand(crowds, 4, generator=generator),
        box_only=torch.zeros(count, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    config = replace(
        TABLETOP_MODEL, classes=("a", "b", "c"), input_size=(256, 256), channels=8,
        num_prototypes=4,
    )  # fmt: skip
    model = Yolact(config).eval()
    with torch.no_grad():
        output = model(torch.randn(2, 3, 256, 256))
    return model, YolactOutput(*(x.clone().requires_grad_() for x in output))


def test_only_the_semantic_loss_is_positive_without_instances(tiny):
    model, output = tiny
    targets = [random_target(torch.Generator(), count=0) for _ in range(2)]
    losses = yolact_losses(output, targets, model=model, config=LossConfig())
    for name in ("box", "class", "mask", "mask_iou"):
        assert float(losses[name].detach()) == 0, name
    assert torch.isfinite(losses["semantic"]) and losses["semantic"] > 0
    torch.stack(list(losses.values())).sum().backward()


def test_the_mask_loss_equals_a_loop_over_pixels(tiny):
    model, output = tiny
    target = random_target(torch.Generator().manual_seed(4), count=3)
    output = YolactOutput(*(x[:1] for x in output))
    config = LossConfig(masks_to_train=1000)
    losses = yolact_losses(output, [target], model=model, config=config)
    match = match_priors(
        model.priors, target.boxes, class_ids=target.class_ids, crowd_boxes=target.crowd_boxes
    )
    prototypes, coefficients = output.prototypes[0].detach(), output.coefficients[0].detach()
    height, width = prototypes.shape[:2]
    truths = resize_masks(target.masks, (height, width))
    total = 0.0
    positives = torch.nonzero(match.labels > 0)[:, 0].tolist()
    for prior in positives:
        i = int(match.instances[prior])
        x1, y1, x2, y2 = (target.boxes[i] * torch.tensor([width, height] * 2)).tolist()
        soft = torch.sigmoid(prototypes @ coefficients[prior])
        for y in range(height):
            for x in range(width):
                if not (x1 - 1 <= x < x2 + 1 and y1 - 1 <= y < y2 + 1):
                    soft[y, x] = 0
        entropy = nn.functional.binary_cross_entropy(soft, truths[i], reduction="sum")
        total += float(entropy) / ((x2 - x1) * (y2 - y1))
    expected = 6.125 * total / len(positives)
    assert float(losses["mask"].detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("upsampling", [2, 4])
def test_the_fine_mask_loss_equals_opencv_and_numpy(tiny, upsampling):
    model, output = tiny
    target = random_target(torch.Generator().manual_seed(5), count=3)
    output = YolactOutput(*(x[:1] for x in output))
    config = LossConfig(masks_to_train=1000, mask_upsampling=upsampling, dice_weight=0.7)
    losses = yolact_losses(output, [target], model=model, config=config)
    match = match_priors(
        model.priors, target.boxes, class_ids=target.class_ids, crowd_boxes=target.crowd_boxes
    )
    prototypes, coefficients = output.prototypes[0].detach(), output.coefficients[0].detach()
    height, width = prototypes.shape[:2]
    size = (width * upsampling, height * upsampling)
    positives = torch.nonzero(match.labels > 0)[:, 0].tolist()
    total = 0.0
    for prior in positives:
        i = int(match.instances[prior])
        soft = torch.sigmoid(prototypes @ coefficients[prior]).double().numpy()
        x1, y1, x2, y2 = (target.boxes[i] * torch.tensor([width, height] * 2)).tolist()
        columns = [x for x in range(width) if x1 - 1 <= x < x2 + 1]
        rows = [y for y in range(height) if y1 - 1 <= y < y2 + 1]
        region = soft[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        predicted = np.zeros(size[::-1])
        top, left = rows[0] * upsampling, columns[0] * upsampling
        fine = cv2.resize(region, (len(columns) * upsampling, len(rows) * upsampling))
        predicted[top : top + fine.shape[0], left : left + fine.shape[1]] = fine
        mask = target.masks[i].float().numpy()
        truth = (cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR) > 0.5).astype(float)
        with np.errstate(divide="ignore"):
            log_p = np.maximum(np.log(predicted), -100)
            log_not = np.maximum(np.log(1 - predicted), -100)
        entropy = -(truth * log_p + (1 - truth) * log_not).sum()
        total += entropy / ((x2 - x1) * (y2 - y1) * upsampling**2)
        inside = truth[top : top + fine.shape[0], left : left + fine.shape[1]]
        dice = (2 * (fine * inside).sum() + 1) / ((fine**2).sum() + (inside**2).sum() + 1)
        total += 0.7 * (1 - dice)
    expected = 6.125 * total / len(positives)
    assert float(losses["mask"].detach()) == pytest.approx(expected, rel=1e-4)
    torch.stack(list(losses.values())).sum().backward()


def test_dice_losses_by_hand():
    truth = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    masks = torch.stack([truth, 1 - truth, torch.zeros(2, 2), torch.full((2, 2), 0.5)])
    expected = [0, 1 - 1 / 5, 1 - 1 / 3, 1 - 3 / 4]
    assert dice_losses(masks, truth).tolist() == pytest.approx(expected)
    assert dice_losses(torch.zeros(0, 2, 2), truth).shape == (0,)
    assert dice_losses(torch.zeros(1, 2, 2), torch.zeros(2, 2)).tolist() == [0]


def column_target(start, stop):
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, :, start:stop] = 1
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    return Target(boxes, torch.tensor([0]), masks, torch.zeros(0, 4), torch.tensor([False]))


def test_a_thin_object_is_visible_only_at_the_inputs_size():
    target = column_target(20, 21)  # beside the samples that prototypes see
    prototypes = torch.zeros(16, 16, 4)
    truths = {
        upsampling: TrainedMasks(
            prototypes,
            torch.zeros(1, 4),
            target,
            owners=torch.zeros(1, dtype=torch.int64),
            upsampling=upsampling,
        ).truths
        for upsampling in (1, 4)
    }
    assert int(truths[1].sum()) == 0
    assert torch.equal(truths[4], target.masks.float())


def test_re_scoring_learns_the_iou_of_fine_masks():
    target = column_target(20, 22)
    prototypes = torch.full((16, 16, 1), -20.0)
    prototypes[:, 5] = 20  # pixels 20 to 23, of which the object has two
    masks = TrainedMasks(
        prototypes, torch.ones(1, 1), target, owners=torch.tensor([0]), upsampling=4
    )
    model = SimpleNamespace(mask_rescoring=lambda soft: torch.zeros(len(soft), 3))
    loss = mask_iou_loss(masks, model=model, limit=10, smallest_area=1)
    assert float(loss) == pytest.approx(0.5 * 0.5**2)
    too_small = mask_iou_loss(masks, model=model, limit=10, smallest_area=8)  # it has 128 / 16
    assert float(too_small) == 0


@pytest.mark.parametrize("at_least", [0, 2, 9, 100])
def test_ohem_learns_three_of_the_hardest_negatives_for_each_positive(at_least):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 40, 4, generator=generator)
    labels = torch.zeros(2, 40, dtype=torch.int64)
    labels[0, [3, 7]] = torch.tensor([1, 3])
    labels[0, 5] = -1
    loss = class_loss(logits, labels, negatives_per_positive=3, min_negatives=at_least)
    probabilities = logits.softmax(dim=2)
    expected = 0.0
    for image in range(2):
        positive = [i for i in range(40) if labels[image, i] > 0]
        negative = [i for i in range(40) if labels[image, i] == 0]
        negative.sort(key=lambda i, image=image: float(probabilities[image, i, 0]))
        for i in positive + negative[: max(3 * len(positive), at_least)]:
            expected -= float(torch.log(probabilities[image, i, labels[image, i]]))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_semantic_loss_equals_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 3, 8, 8, generator=generator)
    masks = torch.zeros(2, 32, 32, dtype=torch.uint8)
    masks[0, :16, :16] = 1
    masks[1, 8:24, 8:24] = 1
    target = Target(
        torch.zeros(2, 4), torch.tensor([1, 1]), masks, torch.zeros(0, 4), torch.zeros(2).bool()
    )
    truth = np.zeros((3, 8, 8))
    truth[1, :4, :4] = truth[1, 2:6, 2:6] = 1
    expected = 0.0
    for c, y, x in np.ndindex(3, 8, 8):
        p = 1 / (1 + np.exp(-float(logits[0, c, y, x])))
        expected -= np.log(p) if truth[c, y, x] else np.log(1 - p)
    assert float(semantic_loss(logits, [target])) == pytest.approx(expected / 64, rel=1e-5)


def test_crop_regions_are_the_boxes_and_one_pixel_around_them():
    boxes = torch.tensor([[0.25, 0.5, 0.5, 0.75], [0.0, 0.0, 1.0, 1.0]])
    assert crop_regions(boxes, (20, 40)).tolist() == [[9, 9, 21, 16], [0, 0, 40, 20]]


def test_fewer_masks_are_scaled_to_all_of_them(tiny):
    model, output = tiny
    targets = [random_target(torch.Generator().manual_seed(i), count=4) for i in (5, 6)]
    every = yolact_losses(output, targets, model=model, config=LossConfig(masks_to_train=1000))
    means = torch.zeros(2)
    for seed in range(60):
        some = yolact_losses(
            output, targets, model=model, config=LossConfig(masks_to_train=5),
            seeds=(2 * seed, 2 * seed + 1),
        )  # fmt: skip
        means += torch.stack([some["mask"], some["mask_iou"]]).detach() / 60
    assert float(means[0]) == pytest.approx(float(every["mask"].detach()), rel=0.1)


def test_parts_of_a_batch_with_its_normaliser_average_to_the_whole(tiny):
    model, output = tiny
    targets = [random_target(torch.Generator().manual_seed(i), count=i) for i in (2, 6)]
    config = LossConfig(masks_to_train=5)  # fewer than there are
    count = 0

    def remember(positives):
        nonlocal count
        count = positives
        return positives

    whole = yolact_losses(
        output, targets, model=model, config=config, seeds=(7, 8), normaliser=remember
    )
    parts = [
        yolact_losses(
            YolactOutput(*(tensor[i : i + 1] for tensor in output)), [targets[i]], model=model,
            config=config, seeds=(7 + i,), normaliser=lambda _: count / 2,
        )
        for i in range(2)
    ]  # fmt: skip
    assert count > 10
    for name, loss in whole.items():
        average = (parts[0][name] + parts[1][name]) / 2
        assert float(average.detach()) == pytest.approx(float(loss.detach()), rel=1e-4), name
