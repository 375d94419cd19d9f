"""Pictures of prototypes: sizes, colours that mean something, and the empty case."""

from __future__ import annotations

import numpy as np

from yolact_ros.evaluate.prototypes import (
    GAP,
    LABEL,
    TILE,
    MaskAssembly,
    diverging,
    draw_assembly,
    draw_assembly_sheet,
    draw_prototype_grid,
    heat,
    stack_rows,
)
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.masks import assemble_masks


def assembly_of(count):
    generator = np.random.default_rng(count)
    prototypes = generator.random((20, 30, 10), np.float32)
    coefficients = generator.uniform(-1, 1, (count, 10)).astype(np.float32)
    boxes = np.tile(np.array([[0.2, 0.2, 0.7, 0.8]], np.float32), (count, 1))
    detections = Detections(
        boxes=boxes * np.array([60, 40, 60, 40], np.float32),
        scores=np.full(count, 0.9, np.float32),
        mask_scores=np.full(count, 0.8, np.float32),
        class_ids=np.zeros(count, np.int64),
        mask_rois=np.tile(np.array([[10, 10, 20, 20]], np.int32), (count, 1)),
        masks=(np.ones((10, 10), bool),) * count,
        image_size=(40, 60),
    )
    return MaskAssembly(
        detections, prototypes, coefficients, assemble_masks(prototypes, coefficients, boxes)
    )


def test_the_grid_has_a_tile_for_every_prototype():
    sheet = draw_prototype_grid(np.ones((20, 30, 10), np.float32), columns=4)
    rows, columns = 3, 4
    assert sheet.shape == (
        GAP + rows * (LABEL + TILE + GAP),
        GAP + columns * (TILE + GAP),
        3,
    )


def test_prototypes_of_zeros_are_dark_and_do_not_divide_by_zero():
    assert (
        heat(np.zeros((4, 4), np.float32)) == heat(np.zeros((4, 4), np.float32), limit=1)
    ).all()


def test_red_adds_blue_takes_away_and_white_is_nothing():
    colours = diverging(np.array([[1.0, -1.0, 0.0, 9.0]]), 1.0)[0].tolist()
    assert colours == [[0, 0, 255], [255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_the_strongest_terms_come_first():
    prototypes = np.ones((8, 8, 3), np.float32)
    tiles = draw_assembly(
        np.zeros((8, 8, 3), np.uint8),
        prototypes,
        np.array([0.1, -0.9, 0.5], np.float32),
        np.ones((8, 8), np.float32),
        title="mug",
        terms=2,
    )
    assert len(tiles) == 1 + 2 + 2
    strongest = tiles[1][LABEL + TILE // 2, TILE // 2].tolist()
    assert strongest == [255, 0, 0]  # -0.9 of 0.9: fully blue


def test_a_sheet_shows_as_many_masks_as_there_are_up_to_the_limit():
    image = np.zeros((40, 60, 3), np.uint8)
    row = LABEL + TILE + GAP
    heights = [
        draw_assembly_sheet(image, assembly_of(n), class_names=["mug"], instances=2).shape[0]
        for n in (0, 1, 2, 3)
    ]
    assert [height - heights[0] for height in heights] == [0, row + GAP, 2 * row + GAP] + [
        2 * row + GAP
    ]


def test_an_empty_sheet_is_only_a_border():
    assert stack_rows([]).shape == (GAP, GAP, 3)
