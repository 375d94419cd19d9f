"""AP during training equals that of `yolact evaluate`, in one part or in several."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")

from yolact_ros.datasets.coco import CocoDataset  # noqa: E402
from yolact_ros.evaluate.coco_map import evaluate_dataset  # noqa: E402
from yolact_ros.evaluate.training_ap import POSTPROCESS, detect, score  # noqa: E402
from yolact_ros.model.weights.checkpoint import initialise_weights, save_checkpoint  # noqa: E402
from yolact_ros.model.yolact import Yolact  # noqa: E402
from yolact_ros.runtime.segmenter import Segmenter  # noqa: E402
from yolact_ros.variants import TABLETOP_MODEL  # noqa: E402

TINY = replace(
    TABLETOP_MODEL, classes=("cup", "spoon"), input_size=(64, 64), channels=8, num_prototypes=4,
    mask_rescoring=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    model = Yolact(TINY)
    initialise_weights(model)
    return model.eval()


@pytest.fixture(scope="module")
def dataset(model, tmp_path_factory):
    """Write three noisy images; the truth is part of what the untrained network detects."""
    folder = tmp_path_factory.mktemp("data")
    checkpoint = folder / "model.pth"
    save_checkpoint(checkpoint, model)
    random = np.random.default_rng(0)
    content = {"images": [], "annotations": []}
    content["categories"] = [{"id": 1, "name": "cup"}, {"id": 2, "name": "spoon"}]
    with Segmenter.open(checkpoint, postprocess=POSTPROCESS) as segmenter:
        for i in range(3):
            image = random.integers(0, 255, (48, 64, 3), np.uint8)
            cv2.imwrite(str(folder / f"{i}.png"), image)
            content["images"].append({"id": i, "file_name": f"{i}.png", "height": 48, "width": 64})
            found = segmenter.segment(image)
            for k in range(0, min(len(found), 12), 3):
                x1, y1, x2, y2 = (float(v) for v in found.boxes[k])
                content["annotations"].append(
                    {"id": len(content["annotations"]) + 1, "image_id": i, "iscrowd": 0,
                     "category_id": int(found.class_ids[k]) + 1, "area": (x2 - x1) * (y2 - y1),
                     "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]}
                )  # fmt: skip
    (folder / "truth.json").write_text(json.dumps(content))
    return CocoDataset(folder / "truth.json", folder, TINY.classes)


def test_it_equals_the_ap_of_yolact_evaluate(model, dataset):
    result = score([detect(model, dataset, range(3), show=False)])
    values = result.values
    checkpoint = dataset.image_folder / "model.pth"
    with Segmenter.open(checkpoint, postprocess=POSTPROCESS) as segmenter:
        expected = evaluate_dataset(segmenter.segment, dataset).scores
    assert values["box_ap"] == expected.box["ap"] > 0.02
    assert values["mask_ap"] == expected.mask["ap"]
    assert values["mask_ap50"] == expected.mask["ap50"]
    means = [precision.mean() for precision, instances in result.curves.values() if instances]
    assert np.mean(means) == pytest.approx(values["mask_ap50"])
    truth = sum(instances for _, instances in result.curves.values())
    assert truth == sum(len(dataset.annotations(i)) for i in range(3))
    assert {name: image.shape for name, image in result.pictures.items()} == {
        f"{i}.png": (48, 64, 3) for i in range(3)
    }


def test_parts_from_several_processes_score_as_the_whole(model, dataset):
    whole = score([detect(model, dataset, range(3), show=False)]).values
    parts = [detect(model, dataset, range(i, 3, 2), show=False) for i in range(2)]
    assert score(pickle.loads(pickle.dumps(parts))).values == whole


def test_without_a_true_instance_there_is_no_ap(model, dataset, tmp_path):
    content = json.loads(dataset.annotations_path.read_text())
    (tmp_path / "truth.json").write_text(json.dumps({**content, "annotations": []}))
    empty = CocoDataset(tmp_path / "truth.json", dataset.image_folder, TINY.classes)
    values = {"box_ap": None, "mask_ap": None, "mask_ap50": None}
    result = score([detect(model, empty, range(2), show=False)])
    assert (result.values, result.curves) == (values, {})
    nothing = score([detect(model, empty, [], show=False)])
    assert (nothing.values, nothing.pictures) == (values, {})
