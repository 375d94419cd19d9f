"""Drawings of prototypes have the right sizes and colours, even without any instance."""

from __future__ import annotations

import numpy as np
import pytest
from squares import FINISHED_GRAPH, write_squares

from yolact_ros.evaluate.prototypes import (
    COLUMNS,
    TERMS,
    TILE,
    MaskAssembly,
    diverging,
    draw_assembly,
    draw_assembly_sheet,
    heat,
    take_apart,
)
from yolact_ros.evaluate.tiles import GAP, LABEL, make_tile, stack_rows
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.masks import assemble_masks
from yolact_ros.runtime.segmenter import Segmenter


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
    sheet = draw_assembly_sheet(np.zeros((40, 60, 3), np.uint8), assembly_of(0), class_names=[])
    rows = 2  # of 10 prototypes
    height, width = GAP + rows * (LABEL + TILE[0] + GAP), GAP + COLUMNS * (TILE[1] + GAP)
    assert sheet.shape == (height, width, 3)


def test_prototypes_of_zeros_are_dark_and_do_not_divide_by_zero():
    assert (
        heat(np.zeros((4, 4), np.float32)) == heat(np.zeros((4, 4), np.float32), limit=1)
    ).all()


def test_red_is_positive_blue_is_negative_and_white_is_zero():
    colours = diverging(np.array([[1.0, -1.0, 0.0, 9.0]]), 1.0)[0].tolist()
    assert colours == [[0, 0, 255], [255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_the_strongest_terms_come_first():
    coefficients = np.array([[0.1, -0.9, 0.5, 0.2, 0.3, 0.4]], np.float32)
    one = assembly_of(1)
    assembly = MaskAssembly(one.detections, np.ones((8, 8, 6), np.float32), coefficients, one.soft)
    image = np.zeros((40, 60, 3), np.uint8)
    tiles = draw_assembly(image, assembly, 0, class_names=["mug"])
    assert len(tiles) == 1 + TERMS + 2
    strongest = tiles[1][LABEL + TILE[0] // 2, TILE[1] // 2].tolist()
    assert strongest == [255, 0, 0]  # -0.9 of 0.9: fully blue


def test_a_sheet_shows_as_many_masks_as_there_are_up_to_the_limit():
    image = np.zeros((40, 60, 3), np.uint8)
    row = LABEL + TILE[0] + GAP
    heights = [
        draw_assembly_sheet(image, assembly_of(n), class_names=["mug"], instances=2).shape[0]
        for n in (0, 1, 2, 3)
    ]
    assert [height - heights[0] for height in heights] == [0, row, 2 * row, 2 * row]


def test_an_empty_sheet_is_only_a_border():
    assert stack_rows([]).shape == (GAP, GAP, 3)


def test_a_model_for_several_cameras_is_taken_apart_as_well(tmp_path):
    pytest.importorskip("onnxruntime")
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 8:40, 0] = 255
    found = []
    for batch in (1, 2):
        folder = write_squares(tmp_path / str(batch), FINISHED_GRAPH, form="with_nms", batch=batch)
        with Segmenter.open(folder) as segmenter:
            found.append(take_apart(segmenter, image))
    one, two = found
    assert one.coefficients.shape == (1, 4) and one.prototypes[8, 5, 0] == 20
    np.testing.assert_array_equal(two.prototypes, one.prototypes)
    np.testing.assert_array_equal(two.soft.dense(), one.soft.dense())


def test_a_tile_has_the_requested_size_whatever_its_picture_and_caption():
    for side in ((1, 1), (900, 3), (3, 900)):
        tile = make_tile(np.full((*side, 3), 255, np.uint8), "caption " * 30, (50, 80))
        assert tile.shape == (LABEL + 50, 80, 3)
        assert tile[LABEL:].max() == 255
