"""Losses for boxes without masks match hand numbers and slow loops, and a disc is learnt."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from yolact_ros.model.yolact import Yolact, YolactOutput  # noqa: E402
from yolact_ros.train.losses import LossConfig, semantic_loss, yolact_losses  # noqa: E402
from yolact_ros.train.mask_losses import (  # noqa: E402
    lab_colours,
    pairwise_losses,
    projection_losses,
)
from yolact_ros.train.matching import Target  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402


def test_projection_losses_by_hand():
    inside = torch.tensor([[0.0, 1, 1, 0], [0, 1, 1, 0]])
    diagonal = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0]])  # touches all four sides
    masks = torch.stack([inside, diagonal, torch.zeros(2, 4), torch.ones(2, 4)])
    # Of the columns 1 - (2 * shared + 1) / (|p|^2 + |t|^2 + 1), and the same of the rows.
    empty = (1 - 1 / 3) + (1 - 1 / 3)
    full = (1 - 5 / 7) + 0
    assert projection_losses(masks, inside).tolist() == pytest.approx([0, 0, empty, full])


def test_pairwise_losses_of_one_pair_by_hand():
    logits = torch.tensor([[[2.0, 0.0, -1.0]]])
    inside = torch.tensor([[1.0, 0.0, 0.0]])
    p, q = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(1.0))
    expected = -np.log(p * q + (1 - p) * (1 - q))
    grey = torch.zeros(3, 1, 3)
    assert pairwise_losses(logits, grey, inside).tolist() == pytest.approx([expected])
    other = grey.clone()
    other[0, 0, 2] = 2.5  # exp(-2.5 / 2) is 0.287
    assert pairwise_losses(logits, other, inside).tolist() == [0]
    assert pairwise_losses(logits, grey, torch.zeros(1, 3)).tolist() == [0]
    assert pairwise_losses(torch.zeros(0, 1, 3), grey, inside).shape == (0,)
    assert pairwise_losses(torch.zeros(1, 1, 1), grey[..., :1], inside[:, :1]).tolist() == [0]


def test_pairwise_losses_equal_a_loop_over_pairs():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 6, 7, generator=generator)
    colours = 2 * torch.rand(3, 6, 7, generator=generator)
    inside = torch.zeros(6, 7)
    inside[1:4, 2:6] = 1
    soft = logits.double().sigmoid().numpy()
    totals, count = np.zeros(2), 0
    for y, x in np.ndindex(6, 7):
        for dy, dx in ((0, 2), (2, 0), (2, 2), (2, -2)):
            v, u = y + dy, x + dx
            if not (0 <= v < 6 and 0 <= u < 7) or not (inside[y, x] or inside[v, u]):
                continue
            difference = (colours[:, y, x] - colours[:, v, u]).numpy()
            if np.exp(-0.5 * np.linalg.norm(difference)) < 0.3:
                continue
            p, q = soft[:, y, x], soft[:, v, u]
            totals -= np.log(p * q + (1 - p) * (1 - q))
            count += 1
    assert 0 < count
    assert pairwise_losses(logits, colours, inside).tolist() == pytest.approx(totals / count)


def test_colours_equal_opencvs():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    expected = [
        cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB) for image in images
    ]
    found = lab_colours(torch.from_numpy(images), (8, 12)).permute(0, 2, 3, 1).numpy()
    assert found == pytest.approx(np.stack(expected), abs=0.3)
    assert lab_colours(torch.from_numpy(images), (2, 3)).shape == (2, 3, 2, 3)


def test_a_disc_is_found_from_its_box_and_its_colour():
    image = np.full((128, 128, 3), 60, np.uint8)
    cv2.circle(image, (64, 64), 40, (40, 160, 220), -1)
    truth = cv2.resize((image[..., 2] > 100).astype(np.uint8), (32, 32)) > 0
    colours = lab_colours(torch.from_numpy(image)[None], (32, 32))[0]
    inside = torch.zeros(32, 32)
    inside[6:26, 6:26] = 1
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    distance = (rows - 7.5).hypot(columns - 7.5)
    # Coarse, as the pairs of pixels two apart do not tie a pixel to its direct neighbours.
    coarse = (0.5 - 0.2 * distance)[None, None].requires_grad_()
    optimizer = torch.optim.Adam([coarse], lr=0.1)
    for _ in range(200):
        logits = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear")[0]
        loss = projection_losses(logits.sigmoid(), inside) + pairwise_losses(
            logits, colours, inside
        )
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    found = logits.detach()[0].numpy() > 0
    iou = (found & truth).sum() / (found | truth).sum()
    box_iou = truth.sum() / (inside.numpy().astype(bool) | truth).sum()
    assert iou > 0.93 > 0.85 > box_iou


def target(box_only):
    masks = torch.zeros(2, 256, 256, dtype=torch.uint8)
    masks[0, 40:120, 40:120] = 1
    masks[1, 100:220, 120:200] = 1
    boxes = torch.tensor([[40.0, 40, 120, 120], [120, 100, 200, 220]]) / 256
    return Target(boxes, torch.tensor([0, 1]), masks, torch.zeros(0, 4), torch.tensor(box_only))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    config = replace(
        TABLETOP_MODEL, classes=("a", "b"), input_size=(256, 256), channels=8, num_prototypes=4
    )
    model = Yolact(config).eval()
    images = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8)
    with torch.no_grad():
        output = model(torch.randn(2, 3, 256, 256))
    return model, images, YolactOutput(*(x.clone().requires_grad_() for x in output))


def losses_of(tiny, *box_only, **settings):
    model, images, output = tiny
    output = YolactOutput(*(x[: len(box_only)] for x in output))
    losses = yolact_losses(
        output,
        [target(each) for each in box_only],
        model=model,
        config=LossConfig(**settings),
        images=images[: len(box_only)],
    )
    torch.stack(list(losses.values())).sum().backward()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def test_boxes_without_masks_count_for_box_and_class_losses_only(tiny):
    whole = losses_of(tiny, [False, False], [False, False])
    some = losses_of(tiny, [False, False], [True, True])
    alone = losses_of(tiny, [False, False])
    assert "box_mask" not in some
    for name in ("box", "class"):
        assert some[name] == whole[name]
    for name in ("mask", "mask_iou"):  # a mean over the priors that have a mask
        assert some[name] == pytest.approx(alone[name], rel=1e-6), name
    mixed = losses_of(tiny, [False, True], [True, True])
    assert mixed["mask"] != pytest.approx(whole["mask"], rel=1e-3)
    none = losses_of(tiny, [True, True])
    assert none["mask"] == none["mask_iou"] == 0 < none["box"]


def test_the_box_supervised_loss_requires_learn_boxes_and_scales_with_its_weight(tiny):
    assert losses_of(tiny, [False, False], box_mask_weight=2.0)["box_mask"] == 0
    one = losses_of(tiny, [False, True], box_mask_weight=1.0)
    two = losses_of(tiny, [False, True], box_mask_weight=2.0)
    assert two["box_mask"] == pytest.approx(2 * one["box_mask"]) and one["box_mask"] > 0
    assert {n: v for n, v in one.items() if n != "box_mask"} == pytest.approx(
        losses_of(tiny, [False, True])
    )


def test_the_semantic_loss_ignores_the_inside_of_boxes_without_masks():
    logits = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(2))
    expected = 0.0
    for c, y, x in np.ndindex(2, 32, 32):
        p = 1 / (1 + np.exp(-float(logits[0, c, y, x])))
        first = 5 <= y < 15 and 5 <= x < 15  # of class 0, with a mask
        second = 12 <= y < 28 and 15 <= x < 25  # of class 1, with a box alone
        if c == 0:
            expected -= np.log(p) if first else np.log(1 - p)
        elif not second:
            expected -= np.log(1 - p)
    masks = torch.zeros(2, 32, 32, dtype=torch.uint8)
    masks[0, 5:15, 5:15] = 1
    masks[1, 12:28, 15:25] = 1
    given = replace(target([False, True]), masks=masks)
    assert float(semantic_loss(logits, [given])) == pytest.approx(expected / 32**2, rel=1e-4)
