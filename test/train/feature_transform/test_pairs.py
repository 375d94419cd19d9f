"""Pairs of keyframe and frame are correct, their losses match hand numbers, and training works."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")

from yolact_ros.config import FlowConfig  # noqa: E402
from yolact_ros.datasets.coco import CocoDataset  # noqa: E402
from yolact_ros.errors import ConfigError  # noqa: E402
from yolact_ros.model.feature_transform import LevelTransform, flow_in_cells  # noqa: E402
from yolact_ros.model.weights.checkpoint import load_model  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.train.augment import AugmentConfig  # noqa: E402
from yolact_ros.train.config import DataConfig, OptimizerConfig, ScheduleConfig, TrainConfig  # noqa: E402, E501
from yolact_ros.train.feature_transform.losses import (  # noqa: E402
    flow_in_units,
    flow_loss,
    matching_loss,
    moved_pass,
)
from yolact_ros.train.feature_transform.pairs import (  # noqa: E402
    MotionConfig,  # noqa: E402
    PairConfig,
    VideoPairs,
    pair_of_still,
)
from yolact_ros.train.loader import collate  # noqa: E402
from yolact_ros.train.trainer import Trainer  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

TINY = replace(
    TABLETOP_MODEL, classes=("square",), input_size=(96, 128), channels=8, num_prototypes=4,
    mask_rescoring=False, flow=FlowConfig(channels=8),
)  # fmt: skip
NO_CHANGES = AugmentConfig(
    brightness=0, contrast=0, saturation=0, hue=0, expand_probability=0, crop_probability=0,
    mirror_probability=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> DataConfig:
    """Write two videos of three frames in which a square moves to the right."""
    folder = tmp_path_factory.mktemp("video")
    random = np.random.default_rng(0)
    names, videos, annotations = [], [], []
    for number in (1, 2):
        background = cv2.resize(random.integers(0, 255, (6, 8, 3), np.uint8), (128, 96))
        files, boxes = [], []
        for time in range(3):
            x, y = 20 + 12 * time, 20 * number
            image = background.copy()
            cv2.rectangle(image, (x, y), (x + 29, y + 29), (0, 0, 250), -1)
            files.append(f"{number}_{time}.png")
            boxes.append([x, y, 30, 30])
            cv2.imwrite(str(folder / files[-1]), image)
        videos.append({"id": number, "width": 128, "height": 96, "length": 3, "file_names": files})
        names += files
        polygons = [[[x, y, x + w, y, x + w, y + h, x, y + h]] for x, y, w, h in boxes]
        annotations.append(
            {
                "id": number, "video_id": number, "category_id": 1, "iscrowd": 0,
                "segmentations": polygons, "bboxes": boxes, "areas": [900] * 3,
            }
        )  # fmt: skip
    content = {
        "videos": videos,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "square"}],
    }
    (folder / "video.json").write_text(json.dumps(content))
    return DataConfig(str(folder / "video.json"), str(folder))


def test_flow_in_units_inverts_flow_in_cells():
    flow = torch.randn(2, 2, 5, 9)
    torch.testing.assert_close(flow_in_units(flow_in_cells(flow)), flow)


def test_the_flow_loss_counts_known_cells_of_both_levels():
    pixels = torch.full((1, 2, 6, 8), float("nan"))
    pixels[0, :, 0, 0] = torch.tensor([16.0, 0.0])  # one cell of x4, half a cell of x5
    pixels[0, :, 1, 1] = torch.tensor([0.0, 16.0])  # not seen at the coarse level
    still = tuple(
        LevelTransform(torch.zeros(1, 2, h, w), torch.ones(0), torch.zeros(0))
        for h, w in [(6, 8), (3, 4)]
    )
    expected = (16 / 7 * 1 + 16 / 5 * 1) / 2 + 16 / 3 * 0.5
    assert float(flow_loss(still, pixels)) == pytest.approx(expected, rel=1e-5)
    nothing = torch.full_like(pixels, float("nan"))
    assert float(flow_loss(still, nothing)) == 0


@torch.no_grad()
def test_equal_features_cost_nothing_and_opposite_ones_two():
    network = Yolact(TINY)
    full = torch.rand(1, 8, 6, 8) + 0.1, torch.rand(1, 8, 3, 4) + 0.1
    assert float(matching_loss(network, full, full)) == pytest.approx(0, abs=1e-5)
    for layer in network.fpn.predict_layers:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.ones_(layer.bias)  # all are equal after the convolutions
    opposite = tuple(-x for x in full)
    assert float(matching_loss(network, opposite, full)) == pytest.approx(1.0, abs=1e-5)


def test_the_pass_equals_that_of_inference():
    torch.manual_seed(0)
    network = Yolact(TINY).eval()
    for parameter in network.feature_transform.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    frame, keyframe = torch.randn(2, 1, 3, 96, 128).unbind()
    with torch.no_grad():
        _, features = network.keyframe(keyframe)
        expected = network.non_keyframe(frame, features)
        got = moved_pass(network, frame, keyframe)
        _, own = network.keyframe(frame)
    for ours, theirs in zip(got.output, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(got.full, (own.x4, own.x5))


def test_frames_of_a_video_are_augmented_alike(video):
    dataset = CocoDataset(video.annotations, video.images)
    config = TrainConfig(TINY, pairs=PairConfig(), seed=3)
    pairs = VideoPairs(dataset, config)
    plain = VideoPairs(dataset, replace(config, augmentation=NO_CHANGES))
    differences = []
    for position in range(6):
        pair, untouched = pairs[position], plain[position]
        assert np.isnan(pair.flow).all()
        assert pair.flow.shape == (2, 6, 8)
        assert pair.frame.file_name == untouched.frame.file_name
        # The background of a video stands still, so changed alike it stays equal.
        same = (pair.frame.image == pair.keyframe).all(axis=2).mean()
        before = (untouched.frame.image == untouched.keyframe).all(axis=2).mean()
        differences.append(abs(same - before))
        assert not np.array_equal(pair.frame.image, untouched.frame.image)
        again = pairs[position]
        np.testing.assert_array_equal(pair.keyframe, again.keyframe)
    assert np.median(differences) < 0.25


def test_a_still_and_its_keyframe_form_a_batch(video):
    dataset = CocoDataset(video.annotations, video.images)
    pairs = [
        pair_of_still(dataset.load(i), PairConfig(), random=np.random.default_rng(i))
        for i in range(2)
    ]
    batch = collate(pairs)
    assert batch.motion.keyframes.shape == batch.images.shape == (2, 96, 128, 3)
    assert batch.motion.flow.shape == (2, 2, 6, 8)
    assert batch.motion.flow.isfinite().float().mean() > 0.5
    assert collate([pair.frame for pair in pairs]).motion is None


@pytest.mark.parametrize("source", ["stills", "video"])
def test_training_on_pairs_changes_only_the_transform(source, video, pictures, tmp_path):
    data = video if source == "video" else DataConfig(*map(str, pictures))
    config = TrainConfig(
        model=TINY,
        training=data,
        validation=data,
        augmentation=NO_CHANGES,
        pairs=PairConfig(motion=MotionConfig(shift=0.08, instance_probability=0)),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.003),
        schedule=ScheduleConfig(name="cosine", warm_up_steps=2),
        pretrained=False,
        freeze_batch_norm=True,
        trained=("feature_transform",),
        steps=3,
        batch_size=2,
        workers=0,
        validation_ap=False,
        log_interval=1,
    )
    trainer = Trainer(config, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    changed = {
        name.split(".")[0]
        for name, value in trainer.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"feature_transform"}
    rows = list(csv.DictReader((tmp_path / "run" / "losses.csv").read_text().splitlines()))
    assert {"box", "class", "mask", "semantic", "flow", "matching", "total"} <= set(rows[0])
    (judged,) = csv.DictReader((tmp_path / "run" / "validation.csv").read_text().splitlines())
    assert float(judged["flow"]) > 0  # of stills in both cases
    assert all((float(row["flow"]) > 0) == (source == "stills") for row in rows)
    assert load_model(tmp_path / "run" / "last.pth").config.flow == TINY.flow


def test_the_transform_learns_a_constant_motion():
    torch.manual_seed(0)
    network = Yolact(TINY).eval()
    images = torch.nn.functional.interpolate(torch.randn(4, 3, 12, 16), (96, 128), mode="bicubic")
    keyframes = images.roll(6, dims=3)
    flow = torch.zeros(4, 2, 6, 8)
    flow[:, 0] = 6.0
    optimizer = torch.optim.Adam(network.feature_transform.parameters(), lr=0.01)
    errors = []
    for _ in range(40):
        loss = flow_loss(moved_pass(network, images, keyframes).transforms, flow)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.4 * errors[0]


def test_pairs_require_a_network_with_a_feature_transform():
    with pytest.raises(ConfigError, match="feature transform.*model.flow"):
        TrainConfig(model=TABLETOP_MODEL, pairs=PairConfig())
