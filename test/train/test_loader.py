"""Training samples come in a seeded order that can start anywhere and favours rare classes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pycocotools")

from yolact_ros.config import ModelConfig  # noqa: E402
from yolact_ros.datasets.coco import CocoDataset  # noqa: E402
from yolact_ros.errors import DatasetError  # noqa: E402
from yolact_ros.train.augment import AugmentConfig  # noqa: E402
from yolact_ros.train.config import TrainConfig  # noqa: E402
from yolact_ros.train.loader import TrainingStream, collate, repeat_factors  # noqa: E402
from yolact_ros.train.losses import LossConfig  # noqa: E402

MODEL = ModelConfig(name="tiny", classes=("bolt", "nut"), input_size=(32, 32))
PLAIN = AugmentConfig(expand_probability=0.0, crop_probability=0.0)


@pytest.fixture
def stream_of(tmp_path):
    """Create the stream of images that show the given categories (1 bolt, 2 nut)."""

    def make(*shown, threshold=0.0, seed=0, keep_empty=False):
        images, annotations = [], []
        for i, categories in enumerate(shown):
            cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((32, 32, 3), 10 * i, np.uint8))
            images.append({"id": i, "file_name": f"{i}.png", "height": 32, "width": 32})
            for category in categories:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": i, "category_id": category,
                     "segmentation": [[4, 4, 28, 4, 28, 28, 4, 28]], "iscrowd": 0}
                )  # fmt: skip
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}],
        }
        (tmp_path / "instances.json").write_text(json.dumps(content))
        dataset = CocoDataset(tmp_path / "instances.json", tmp_path, MODEL.classes)
        losses = LossConfig(min_negatives=int(keep_empty))
        config = TrainConfig(MODEL, augmentation=PLAIN, losses=losses, seed=seed)
        return TrainingStream(dataset, replace(config, repeat_threshold=threshold))

    return make


def test_an_image_is_repeated_for_its_rarest_class():
    # Class 0 on 4 of 5 images is not rare; class 1 on 1 of 5: sqrt(0.8 / 0.2) = 2.
    shown = [{0}, {0}, {0, 1}, {0}, set()]
    assert repeat_factors(shown, threshold=0.8).tolist() == [1, 1, 2, 1, 1]


def test_two_instances_of_a_class_on_one_image_count_once():
    np.testing.assert_allclose(repeat_factors([[1, 1], [0], [0], [0]], threshold=1.0)[0], 2.0)


def test_no_images_have_no_factors():
    assert repeat_factors([], threshold=0.5).shape == (0,)


def test_images_of_a_rare_class_occur_twice_in_an_epoch(stream_of):
    stream = stream_of([1], [1], [1, 2], [1], [1], threshold=0.8)
    names = Counter(stream[k].file_name for k in range(6))
    assert names == {"0.png": 1, "1.png": 1, "2.png": 2, "3.png": 1, "4.png": 1}


def test_fractional_repeats_are_exact_on_average(stream_of):
    # sqrt(0.45 / 0.2) = 1.5 times
    times = [
        stream_of([1], [1], [1, 2], [1], [1], threshold=0.45, seed=seed).indices.count(2)
        for seed in range(30)
    ]
    assert set(times) == {1, 2}
    assert 5 < times.count(2) < 25


def test_each_epoch_shows_every_image_with_instances_once_in_its_own_order(stream_of):
    stream = stream_of([1], [2], [], [1], [2], [1])
    epochs = [[stream[5 * e + k].file_name for k in range(5)] for e in range(4)]
    for names in epochs:
        assert sorted(names) == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    assert len({tuple(names) for names in epochs}) > 1


def test_images_without_instances_are_kept_on_request(stream_of):
    stream = stream_of([1], [], [2], keep_empty=True, threshold=0.1)
    samples = {stream[k].file_name: stream[k] for k in range(30)}  # mirrored and not
    assert sorted(samples) == ["0.png", "1.png", "2.png"]
    assert samples["1.png"].boxes.shape == (0, 4)
    for k in range(30):
        batch = collate([stream[k]])
        assert len(batch.targets[0].masks) == (batch.file_names != ["1.png"])


def test_a_sample_depends_only_on_seed_and_position(stream_of):
    shown = [[1], [2], [1, 2], [1]]
    one, two = stream_of(*shown, threshold=0.9), stream_of(*shown, threshold=0.9)
    later = two[7]  # without those before it
    for k in range(7):
        one[k]
    np.testing.assert_array_equal(one[7].image, later.image)
    np.testing.assert_array_equal(one[7].boxes, later.boxes)
    other = stream_of(*shown, threshold=0.9, seed=1)
    assert any(one[k].file_name != other[k].file_name for k in range(8))


def test_a_broken_image_is_replaced_by_the_next_one(stream_of):
    stream = stream_of([1], [2], [1], [2])
    order = [stream[k].file_name for k in range(4)]
    (stream.dataset.image_folder / order[1]).write_bytes(b"broken")
    samples = [stream[k] for k in range(4)]
    assert [s.file_name for s in samples] == [order[0], order[2], order[2], order[3]]
    batch = collate(samples)
    assert len(batch.passed_over) == 1
    assert order[1] in batch.passed_over[0] and "decoded" in batch.passed_over[0]


def test_a_data_set_without_a_readable_image_is_refused(stream_of):
    stream = stream_of([1], [2])
    for name in ("0.png", "1.png"):
        (stream.dataset.image_folder / name).write_bytes(b"broken")
    with pytest.raises(DatasetError, match="No image can be read"):
        stream[0]


def test_a_data_set_without_instances_is_refused(stream_of):
    with pytest.raises(DatasetError, match="no image has an instance"):
        stream_of([], [])
