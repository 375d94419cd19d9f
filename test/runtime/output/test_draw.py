from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.draw import class_colour, draw_detections


def detections(boxes, *, size=(120, 160), class_ids=None):
    rois = np.asarray(boxes, np.int32).reshape(-1, 4)
    count = len(rois)
    return Detections(
        boxes=rois.astype(np.float32),
        scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        mask_scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
        class_ids=np.asarray(class_ids or [0] * count, np.int64),
        mask_rois=rois,
        masks=tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in rois),
        image_size=size,
    )


def test_the_mask_gets_the_colour_of_its_class_and_the_rest_is_unchanged():
    image = np.full((120, 160, 3), 100, np.uint8)
    drawn = draw_detections(image, detections([[20, 40, 100, 110]], class_ids=[1]), ("a", "b"))
    expected = 0.55 * 100 + 0.45 * np.array(class_colour(1))
    np.testing.assert_allclose(drawn[80, 60], expected, atol=1)
    assert (drawn[:, 115:] == 100).all()
    assert (image == 100).all()


def test_the_best_instance_is_drawn_on_top():
    image = np.zeros((120, 160, 3), np.uint8)
    boxes = [[20, 40, 100, 110], [20, 40, 100, 110]]
    drawn = draw_detections(image, detections(boxes, class_ids=[0, 1]), ("a", "b"))
    alone = draw_detections(image, detections(boxes[:1]), ("a", "b"))
    distance = np.abs(drawn[80, 60].astype(int) - class_colour(0)).sum()
    assert distance < np.abs(drawn[80, 60].astype(int) - class_colour(1)).sum()
    np.testing.assert_array_equal(drawn[30], alone[30])  # its label keeps its place
    second = (drawn != alone).any(axis=2)
    assert (drawn[second] == class_colour(1)).all(axis=1).any()  # the other is below it


def test_labels_do_not_hide_each_other():
    """Eight objects overlap: every label has its own tag until there is no room."""
    image = np.zeros((240, 320, 3), np.uint8)
    many = detections([[40, 60, 200, 230]] * 8, class_ids=range(8), size=(240, 320))
    drawn = draw_detections(image, many, [f"class {i}" for i in range(8)])
    tags = [(drawn == class_colour(i)).all(axis=2)[:, 42:60].sum() for i in range(8)]
    assert min(tags) > 100


def test_an_image_without_detections_is_copied():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    drawn = draw_detections(image, Detections.empty((60, 80)), ())
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("box", [[0, 0, 160, 120], [150, 110, 160, 120], [5, 5, 5, 5]])
def test_boxes_at_the_borders_and_without_area_are_drawn(box):
    image = np.zeros((120, 160, 3), np.uint8)
    assert draw_detections(image, detections([box]), ("cup",)).any()


def test_an_image_of_one_pixel_and_a_view_are_drawn_on():
    image = np.zeros((240, 320, 3), np.uint8)
    one = draw_detections(image[:1, :1], detections([[0, 0, 1, 1]], size=(1, 1)), ("cup",))
    assert one.shape == (1, 1, 3)
    half = draw_detections(image[::2, ::-2], detections([[20, 40, 100, 110]]), ("cup",))
    assert half.shape == (120, 160, 3)
    assert not image.any()


def test_colours_of_coco_classes_differ():
    colours = np.array([class_colour(i) for i in range(80)])
    distances = np.abs(colours[:, None] - colours).sum(axis=2) + 1000 * np.eye(80)
    assert distances.min() > 0
    neighbours = np.abs(np.diff(colours, axis=0)).sum(axis=1)
    assert neighbours.min() > 100


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match="detections are of an image of"):
        draw_detections(np.zeros((10, 10, 3), np.uint8), detections([]), ())
