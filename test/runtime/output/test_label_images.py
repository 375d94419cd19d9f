from __future__ import annotations

import numpy as np

from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.draw import class_image, confidence_image, instance_image


def detections(rois, *, class_ids, scores) -> Detections:
    rois = np.asarray(rois, np.int32).reshape(-1, 4)
    scores = np.asarray(scores, np.float32)
    return Detections(
        boxes=rois.astype(np.float32),
        scores=scores,
        mask_scores=scores,
        class_ids=np.asarray(class_ids, np.int64),
        mask_rois=rois,
        masks=tuple(np.ones((y2 - y1, x2 - x1), bool) for x1, y1, x2, y2 in rois),
        image_size=(3, 6),
    )


def test_the_best_of_overlapping_masks_wins():
    found = detections(
        [[0, 0, 4, 2], [2, 1, 6, 3], [5, 0, 5, 0]], class_ids=[4, 0, 1], scores=[0.5, 0.9, 0.2]
    )
    assert found.best_first == [1, 0, 2]
    instances = instance_image(found)
    assert instances.dtype == np.uint16
    np.testing.assert_array_equal(
        instances, [[2, 2, 2, 2, 0, 0], [2, 2, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    )
    classes = class_image(found)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(
        classes, [[5, 5, 5, 5, 0, 0], [5, 5, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]
    )
    confidence = confidence_image(found, background=0.7)
    assert confidence.dtype == np.uint8
    np.testing.assert_array_equal(confidence, np.array([178, 229, 128], np.uint8)[instances])


def test_only_pixels_of_the_mask_are_painted():
    found = detections([[1, 0, 4, 2]], class_ids=[0], scores=[1.0])
    found.masks[0][0, 1] = False
    np.testing.assert_array_equal(
        class_image(found), [[0, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]
    )


def test_an_image_without_detections_is_background():
    for paint in (instance_image, class_image):
        image = paint(Detections.empty((2, 5)))
        assert image.shape == (2, 5) and not image.any()
    for background, value in ((0.7, 178), (1.0, 255), (0.0, 1)):
        image = confidence_image(Detections.empty((2, 5)), background=background)
        assert image.tolist() == [[value] * 5] * 2


def test_labels_that_do_not_fit_into_a_byte_are_unlabelled():
    found = detections(
        [[0, 0, 1, 1], [1, 0, 2, 1], [2, 0, 3, 1]],
        class_ids=[253, 254, 1000],
        scores=[0.001, 1.0, 0.5],
    )
    assert class_image(found)[0, :3].tolist() == [254, 255, 255]
    assert confidence_image(found, background=0.5)[0, :3].tolist() == [1, 255, 128]
