"""The pipeline works on a backend of plain arrays and on a real bundle."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.errors import BackendError
from yolact_ros.runtime.segmenter import Segmenter

LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


@pytest.fixture
def two_halves(tiny):
    """Return outputs with a cup in the left half of every image and a spoon in the right half."""
    return tiny.host_outputs(
        [LEFT, RIGHT, LEFT],
        [[0.9, 0.0], [0.0, 0.8], [0.7, 0.1]],
        prototypes=np.full((8, 10, 1), 5.0),
    )


def test_detections_are_in_pixels_of_the_source_image(tiny, two_halves):
    backend = tiny.FakeBackend(detect=two_halves)
    segmenter = Segmenter(backend, tiny.describe(tiny.TINY))
    found = segmenter.segment(np.zeros((60, 100, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[0, 0, 50, 60], [50, 0, 100, 60]])
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    np.testing.assert_array_equal(found.mask_scores, found.scores)
    assert found.class_ids.tolist() == [0, 1]
    assert found.image_size == (60, 100)
    # A mask may leave its box by the one cell of padding, here a tenth of the width.
    assert found[0].mask[:, :55].all()
    assert not found[0].mask[:, 65:].any()
    assert backend.calls[0][1]["image"].shape == (1, 32, 40, 3)


def test_timings_are_milliseconds_of_three_stages(tiny, two_halves):
    segmenter = Segmenter(tiny.FakeBackend(detect=two_halves), tiny.describe(tiny.TINY))
    timings = segmenter.segment(np.zeros((60, 100, 3), np.uint8)).timings
    assert set(timings) == {"preprocess", "inference", "postprocess"}
    assert all(0 <= value < 5000 for value in timings.values())


def test_settings_may_change_between_two_images(tiny, two_halves):
    segmenter = Segmenter(tiny.FakeBackend(detect=two_halves), tiny.describe(tiny.TINY))
    image = np.zeros((60, 100, 3), np.uint8)
    assert len(segmenter.segment(image)) == 2
    for threshold, count in ((0.85, 1), (0.95, 0)):
        config = PostprocessConfig(score_threshold=threshold)
        assert len(segmenter.segment(image, postprocess=config)) == count
    assert len(segmenter.segment(image)) == 2


def test_masks_are_rescored_soft_and_cropped(tiny):
    prototypes = np.full((64, 64, 1), 2.0, np.float32)
    outputs = tiny.host_outputs([LEFT, RIGHT], [[0.9, 0.0], [0.0, 0.8]], prototypes=prototypes)

    def rescore(inputs):
        return {"mask_iou": np.where(inputs["class_ids"] == 0, 0.5, 1.0).astype(np.float32)}

    backend = tiny.FakeBackend(detect=outputs, rescore=rescore)
    segmenter = Segmenter(backend, tiny.describe(tiny.TINY_RESCORED))
    found = segmenter.segment(np.zeros((256, 256, 3), np.uint8))
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    np.testing.assert_allclose(found.mask_scores, [0.45, 0.8])
    assert found.mask_scores.dtype == np.float32
    masks = backend.calls[1][1]["masks"]
    assert masks.shape == (2, 64, 64)
    inside = 1 / (1 + np.exp(-2.0))  # columns 0..32 of the left half, padded by one
    np.testing.assert_allclose(masks[0, :, :33], inside, rtol=1e-6)
    assert (masks[0, :, 33:] == 0).all()
    assert backend.calls[1][1]["class_ids"].tolist() == [0, 1]


def test_rescoring_is_not_run_without_detections(tiny):
    outputs = tiny.host_outputs([LEFT], [[0.1, 0.2]], prototypes=np.ones((64, 64, 1)))
    backend = tiny.FakeBackend(detect=outputs)  # has no graph rescore
    segmenter = Segmenter(backend, tiny.describe(tiny.TINY_RESCORED))
    found = segmenter.segment(np.zeros((20, 30, 3), np.uint8))
    assert len(found) == 0
    assert found.masks == ()
    assert found.mask_rois.shape == (0, 4)


def test_a_graph_with_nms_inside_gives_its_own_mask_scores(tiny):
    outputs = {
        "boxes": np.array([LEFT, RIGHT, LEFT], np.float32),
        "scores": np.array([0.9, 0.8, -1.0], np.float32),
        "mask_scores": np.array([0.3, 0.6, -1.0], np.float32),
        "class_ids": np.array([1, 0, 0], np.int64),
        "coefficients": np.ones((3, 1), np.float32),
        "prototypes": np.ones((64, 64, 1), np.float32),
    }
    backend = tiny.FakeBackend(detect=outputs)
    description = tiny.describe(tiny.TINY_RESCORED, form="with_nms", max_detections=3)
    found = Segmenter(backend, description).segment(np.zeros((20, 30, 3), np.uint8))
    np.testing.assert_allclose(found.mask_scores, [0.3, 0.6])
    assert found.class_ids.tolist() == [1, 0]
    assert [name for name, _ in backend.calls] == ["detect"]


def test_an_image_of_one_pixel_is_segmented(tiny, two_halves):
    segmenter = Segmenter(tiny.FakeBackend(detect=two_halves), tiny.describe(tiny.TINY))
    found = segmenter.segment(np.zeros((1, 1, 3), np.uint8))
    assert len(found) == 2
    assert found.boxes.max() <= 1
    assert found[0].mask.shape == (1, 1)


def test_a_grey_image_is_refused(tiny, two_halves):
    segmenter = Segmenter(tiny.FakeBackend(detect=two_halves), tiny.describe(tiny.TINY))
    with pytest.raises(ValueError, match="blue, green, red"):
        segmenter.segment(np.zeros((60, 100), np.uint8))


def test_warm_up_runs_every_graph(tiny):
    outputs = tiny.host_outputs([LEFT], [[0.1, 0.2]], prototypes=np.ones((64, 64, 1)))
    backend = tiny.FakeBackend(detect=outputs, rescore={"mask_iou": np.ones(1, np.float32)})
    Segmenter(backend, tiny.describe(tiny.TINY_RESCORED)).warm_up()
    assert [name for name, _ in backend.calls] == ["detect", "rescore"]


def test_leaving_the_context_closes_the_backend(tiny, two_halves):
    backend = tiny.FakeBackend(detect=two_halves)
    with Segmenter(backend, tiny.describe(tiny.TINY)):
        assert not backend.closed
    assert backend.closed


def test_a_bundle_is_segmented_by_onnx_runtime(tiny_bundle):
    image = np.zeros((96, 120, 3), np.uint8)
    image[24:72, 12:48, 0] = 255  # a blue patch in the left half
    with Segmenter.open(tiny_bundle.folder, backend=BackendConfig(threads=1)) as segmenter:
        segmenter.warm_up()
        found = segmenter.segment(image)
    assert found.class_ids.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    patch = np.zeros((96, 120), bool)
    patch[24:72, 12:48] = True
    overlap = (found[0].mask & patch).sum() / (found[0].mask | patch).sum()
    assert overlap > 0.75  # a prototype cell is 12 pixels
    assert not found[1].mask.any()


def test_the_torch_backend_rejects_a_bundle(tiny_bundle):
    with pytest.raises(BackendError, match="--backend onnxruntime"):
        Segmenter.open(tiny_bundle.folder, backend=BackendConfig(backend="torch"))
